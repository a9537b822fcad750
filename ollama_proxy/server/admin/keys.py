"""Take orders about keys: ``/-/keys``. The text of a key is in one answer only."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final

import msgspec
from aiohttp import web

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.access.keys import Key
from ollama_proxy.gateway.key_changes import (
    KeyChanges,
    KeyConflictError,
    KeyConsentError,
    UnknownKeyError,
)
from ollama_proxy.gateway.key_limits import KeyLimits
from ollama_proxy.gateway.key_use import use_body
from ollama_proxy.gateway.key_view import key_body
from ollama_proxy.gateway.key_words import KeyFaultsError
from ollama_proxy.gateway.keyring import Keyring
from ollama_proxy.gateway.right_words import shown
from ollama_proxy.server.admin.answers import json_answer, refuse_browsers
from ollama_proxy.server.admin.small_body import READ_S, read_small
from ollama_proxy.server.caller import caller_of

MOST_LISTED: Final = 500
"""How many keys one answer lists: describing them takes some 5 ms."""

_LONGEST_BODY = 64 * 1024
_KEY = "/-/keys/{name}"

Order = Callable[["KeyOrders", web.Request], Awaitable[web.Response]]


def _refusing(order: Order) -> Order:
    """Return an order that answers an order that can't be carried out in words."""

    @wraps(order)
    async def carry_out(self: "KeyOrders", request: web.Request) -> web.Response:
        refuse_browsers(request)
        if not caller_of(request).is_admin:  # looked at before, and worth a second look
            message = "orders about keys need the right 'admin', or the order token"
            return json_answer({"error": message}, status=403)
        try:
            return await order(self, request)
        except KeyFaultsError as error:
            said = {"error": str(error), "faults": error.faults}
            return json_answer(said, status=400)
        except UnknownKeyError as error:
            return json_answer({"error": str(error)}, status=404)
        except KeyConflictError as error:
            return json_answer({"error": str(error)}, status=409)
        except KeyConsentError as error:
            seen = {"clients": error.clients, "watched_s": error.watched_s}
            return json_answer({"error": str(error), **seen}, status=409)

    return carry_out


class KeyOrders:
    """Lists, makes, changes and removes keys.

    ``are_needed``: tells whether requests need a key now.
    """

    def __init__(
        self,
        keyring: Keyring,
        changes: KeyChanges,
        clock: Clock,
        limits: KeyLimits,
        are_needed: Callable[[], bool],
    ) -> None:
        self._are_needed = are_needed
        self._keyring = keyring
        self._limits = limits
        self._changes = changes
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these orders."""
        return [
            web.get("/-/keys", self.list_keys),
            web.post("/-/keys", self.make),
            web.get(_KEY, self.show),
            web.patch(_KEY, self.edit),
            web.delete(_KEY, self.remove),
            web.post(f"{_KEY}/rotate", self.rotate),
        ]

    @_refusing
    async def list_keys(self, request: web.Request) -> web.Response:
        """List keys by name, from the first one after ``?after=`` on.

        ``next`` of the answer: what ``after`` has to be for the rest; null: no rest.
        """
        after = request.query.get("after", "")
        found = self._keyring.page(after, MOST_LISTED + 1)
        listed = found[:MOST_LISTED]
        following = listed[-1].name if len(found) > MOST_LISTED else None
        return json_answer({"keys": list(map(self._body, listed)), "next": following})

    @_refusing
    async def show(self, request: web.Request) -> web.Response:
        """Return one key, and what it uses now."""
        key = self._changes.named(_name(request))
        return json_answer({**self._body(key), "used": use_body(self._limits, key)})

    @_refusing
    async def make(self, request: web.Request) -> web.Response:
        """Make a key; this one answer has its text, as ``key``.

        The first one for clients is made with ``?yes=1`` alone.
        """
        words, yes = await _words(request), _is_yes(request)
        key, text = self._changes.make(words, caller_of(request), yes=yes)
        return json_answer(self._with_text(key, text), status=201)

    @_refusing
    async def edit(self, request: web.Request) -> web.Response:
        """Change what the body names; ``disabled`` stops and starts the key."""
        words, name, yes = await _words(request), _name(request), _is_yes(request)
        key = self._changes.edit(name, words, caller_of(request), yes=yes)
        return json_answer(self._body(key))

    @_refusing
    async def rotate(self, request: web.Request) -> web.Response:
        """Give a key a new text, which this one answer has, as ``key``."""
        words, name = await _words(request), _name(request)
        key, text = self._changes.rotate(name, words, caller_of(request))
        return json_answer(self._with_text(key, text))

    @_refusing
    async def remove(self, request: web.Request) -> web.Response:
        """Remove a key, and end what goes on with it."""
        key = self._changes.remove(_name(request), caller_of(request))
        return json_answer({"removed": self._body(key)})

    def _with_text(self, key: Key, text: str) -> dict[str, Any]:
        return {**self._body(key), "key": text, "needed": self._are_needed()}

    def _body(self, key: Key) -> dict[str, Any]:
        return key_body(key, self._clock, is_of_file=self._keyring.is_of_file(key))


def _name(request: web.Request) -> str:
    return request.match_info["name"]


def _is_yes(request: web.Request) -> bool:
    return request.query.get("yes") == "1"


async def _words(request: web.Request) -> dict[str, object]:
    """Return the words in a body of JSON; none if it is empty.

    Raises `KeyFaultsError`.
    """
    length = request.content_length
    if length is not None and length > _LONGEST_BODY:
        raise KeyFaultsError([f"a body of {length} bytes is too long for a key"])
    try:
        raw = await read_small(request, _LONGEST_BODY)
    except TimeoutError:
        message = f"the body did not arrive within {READ_S:g} s"
        raise KeyFaultsError([message]) from None
    if raw is None:
        message = f"a body of more than {_LONGEST_BODY} bytes is too long for a key"
        raise KeyFaultsError([message])
    try:
        return msgspec.json.decode(raw or b"{}", type=dict[str, object])
    except ValueError as error:
        message = f"the body {shown(raw.decode('utf-8', 'replace'))} is no JSON object"
        raise KeyFaultsError([f"{message}: {error}"]) from None
