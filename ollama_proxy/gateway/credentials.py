"""Find the key that a request carries, and keep it from the instances.

A key may be a bearer token, an ``x-api-key``, the password of a login (for clients that
know a URL and nothing else) or, for the page, a session cookie. It is never taken from
a query, which stands in logs and histories.

One request has one key. A client may repeat a header, or use two of them, and a browser
adds its cookie by itself: the choice must not depend on their order, nor on which of
them happens to be valid. So a text that is written as one of our keys outranks another
text, two different ones of the same rank are refused, and a cookie counts only if there
is no key; nothing is tried a second time.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ollama_proxy.core.access.facts import SentField
from ollama_proxy.core.http.headers import SESSION_COOKIE
from ollama_proxy.core.nodes.node_keys import PREFIXES, is_of_nodes
from ollama_proxy.gateway.key_text import KEY_PREFIX, OUR_PREFIXES

_AUTHORIZATION, _API_KEY, _COOKIE = "authorization", "x-api-key", "cookie"

SENT_IN: Final = (_AUTHORIZATION, _API_KEY, _COOKIE)
"""The headers that are looked at, in lower case."""

_BEARER = "Bearer "
_BEARER_OF_OURS = f"{_BEARER}{KEY_PREFIX}"
_BEARERS_OF_NODES = tuple(f"{_BEARER}{prefix}" for prefix in PREFIXES)


class Credential(NamedTuple):
    """Holds what a request shows of itself.

    ``text``: a key or order token, "" without one. ``session``: the id of a session,
    "" without one. ``is_ambiguous``: there are several, and none is taken.
    """

    text: str = ""
    session: str = ""
    is_ambiguous: bool = False


_NONE = Credential()
_AMBIGUOUS = Credential(is_ambiguous=True)


def lone_key(sent: Sequence[SentField]) -> str:
    """Return the key of a request that shows nothing but a bearer token of ours.

    "" for all others. Does what `credential_of` does, in a third of its time.
    """
    if len(sent) == 1 and sent[0][1].startswith(_BEARER_OF_OURS):
        name, value = sent[0]
        return value[len(_BEARER) :].strip() if name == _AUTHORIZATION else ""
    return ""


def is_of_a_node(sent: Sequence[SentField]) -> bool:
    """Tell whether a request shows what a node alone has: its key, or a join token."""
    if len(sent) == 1 and (value := sent[0][1]).startswith(_BEARER):  # nearly always
        return value.startswith(_BEARERS_OF_NODES)
    return any(is_of_nodes(_text(name, value)) for name, value in sent)


def credential_of(sent: Sequence[SentField]) -> Credential:
    """Return the one key or session of a request."""
    if not sent:
        return _NONE
    if len(sent) == 1 and (text := _text(*sent[0])):  # nearly always
        return Credential(text)
    found = {text for name, value in sent if (text := _text(name, value))}
    chosen = {text for text in found if text.startswith(OUR_PREFIXES)} or found
    if len(chosen) > 1:
        return _AMBIGUOUS
    if chosen:
        return Credential(chosen.pop())
    sessions = {session for name, value in sent for session in _sessions(name, value)}
    if len(sessions) > 1:
        return _AMBIGUOUS
    return Credential(session=sessions.pop()) if sessions else _NONE


def passes_on(name: str, value: str, *, hides: bool) -> str | None:
    """Return what an instance gets of a header; None if it gets nothing.

    ``name``: in lower case. ``hides``: requests need a key, so that whatever stands in
    these places is meant for the proxy. Otherwise all passes but keys, order tokens and
    sessions of ours.
    """
    if name == _COOKIE:
        return _without_session(value)
    if hides or _is_ours(name, value):
        return None
    return value


def without_credentials(fields: Iterable[SentField], *, hides: bool) -> list[SentField]:
    """Return the headers that an instance gets, in their order; see `passes_on`."""
    kept: list[SentField] = []
    for name, value in fields:
        lowered = name.lower()
        passed: str | None = value
        if lowered in SENT_IN:
            passed = passes_on(lowered, value, hides=hides)
        if passed is not None:
            kept.append((name, passed))
    return kept


def _text(name: str, value: str) -> str:
    """Return what may be a key in a header; "" if nothing may be."""
    if name == _API_KEY:
        return value.strip()
    if name != _AUTHORIZATION:
        return ""
    if value.startswith(_BEARER):  # nearly always, and each request pays for it
        return value[len(_BEARER) :].strip()
    scheme, _, rest = value.strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return rest.strip()
        case "basic":
            return _login(rest)[1]
        case _:
            return ""


def _login(encoded: str) -> tuple[str, str]:
    """Return user and password of a login; both are "" if it can't be read."""
    try:
        padded = encoded.strip() + "=="  # clients without padding are read, too
        plain = base64.b64decode(padded).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return "", ""
    user, colon, password = plain.partition(":")
    return (user, password) if colon else (plain, "")


def _is_ours(name: str, value: str) -> bool:
    """Tell whether a header holds a key or order token, wherever it stands in it."""
    words = value.split(None, 1)
    if any(word.startswith(OUR_PREFIXES) for word in words):
        return True
    if name != _AUTHORIZATION or len(words) < 2:  # noqa: PLR2004 - scheme and login
        return False
    return any(part.startswith(OUR_PREFIXES) for part in _login(words[1]))


def _sessions(name: str, value: str) -> list[str]:
    if name != _COOKIE:
        return []
    pairs = (piece.strip().partition("=") for piece in value.split(";"))
    return [session for key, _, session in pairs if key == SESSION_COOKIE and session]


def _without_session(value: str) -> str | None:
    """Return the cookies of others, unchanged; None if there are none."""
    if SESSION_COOKIE not in value:
        return value
    pieces = value.split(";")
    kept = [one for one in pieces if one.partition("=")[0].strip() != SESSION_COOKIE]
    return ";".join(kept).strip() or None
