"""Make, change and remove keys, by the orders of people; each is in the audit."""

import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import ProxyError
from ollama_proxy.base.parsers import parse_duration
from ollama_proxy.core.access.keys import Caller, Key, KeyId, Rights
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.gateway.key_text import (
    ID_LETTERS,
    SECRET_BYTES,
    digest_of,
    key_text,
)
from ollama_proxy.gateway.key_view import change_words, key_body, terms_words
from ollama_proxy.gateway.key_words import (
    Dates,
    KeyFaultsError,
    KeyTerms,
    is_like_key,
    name_fault,
    read_terms,
)
from ollama_proxy.gateway.keyring import Keyring
from ollama_proxy.gateway.recent_clients import RecentClient, RecentClients
from ollama_proxy.gateway.right_words import shown

MOST_KEYS: Final = 100_000
"""How many keys there may be; each takes some 1 KB of memory."""

GRACE_S: Final = 86_400.0
"""How long the text before a rotation is taken by default."""

_LONGEST_GRACE_S = 30 * 86_400.0


class UnknownKeyError(ProxyError):
    """Reports that no key has this name."""

    reason = "key_unknown"


class KeyConflictError(ProxyError):
    """Reports a change that can't be made to this key, or with so many keys."""

    reason = "key_conflict"


class KeyConsentError(ProxyError):
    """Reports that this first key would have clients without one refused.

    ``clients``: those seen lately. ``watched_s``: for how long they were noted.
    """

    reason = "key_consent"

    def __init__(self, clients: Sequence[RecentClient], watched_s: float) -> None:
        self.clients = tuple(clients)
        self.watched_s = watched_s
        super().__init__(
            "from this key on every request needs one, and clients without one are"
            " refused; ask again with ?yes=1"
        )


class KeyChanges:
    """Carries out orders about keys; ``draw`` returns so many random bytes.

    ``clients``: those that the first key for clients would refuse; None if no key makes
    keys needed, since the settings say whether they are.
    """

    def __init__(
        self,
        keyring: Keyring,
        audit: Audit,
        clock: Clock,
        *,
        clients: RecentClients | None = None,
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._keyring = keyring
        self._audit = audit
        self._clock = clock
        self._clients = clients
        self._draw = draw

    def named(self, name: str) -> Key:
        """Return the key with a name, or an id. Raises `UnknownKeyError`."""
        key = self._known_as(name)
        if key is None:
            told = "that text" if is_like_key(name) else shown(name)
            message = f"no key is named {told}; see `ollama-proxy key list`"
            raise UnknownKeyError(message)
        return key

    def _known_as(self, name: str) -> Key | None:
        return self._keyring.by_name(name) or self._keyring.by_id(KeyId(name))

    def make(
        self, words: Mapping[str, object], caller: Caller, *, yes: bool = False
    ) -> tuple[Key, str]:
        """Make a key of its ``name`` and terms; return it, and its text.

        The text is nowhere else. ``yes``: although clients without a key are refused
        from now on. Raises `KeyFaultsError`, `KeyConflictError`, `KeyConsentError`,
        `StoreError`.
        """
        terms, faults = self._read(words, KeyTerms(Rights()))
        name = words.get("name")
        if "disabled" in words:
            faults.append("disabled: a new key is enabled; disable it afterwards")
        if (fault := name_fault(name)) is not None:
            faults.insert(0, fault)
        elif (held := self._known_as(str(name))) is not None:
            faults.insert(0, self._taken_words(held))
        if faults:
            raise KeyFaultsError(faults)
        if len(self._keyring) >= MOST_KEYS:
            message = f"there are {MOST_KEYS} keys; remove some before you add another"
            raise KeyConflictError(message)
        key_id = self._free_id()
        text = key_text(key_id, self._draw(SECRET_BYTES))
        key = Key(
            key_id,
            str(name),
            digest_of(text),
            rights=terms.rights,
            made_at=self._clock.now(),
            expires_at=terms.expires_at,
        )
        self._ask(key, yes=yes)
        detail = terms_words(key_body(key, self._clock))
        self._put(key, caller, "key add", detail)
        return key, text

    def edit(
        self,
        name: str,
        words: Mapping[str, object],
        caller: Caller,
        *,
        yes: bool = False,
    ) -> Key:
        """Change the terms of a key; what no word names stays as it is.

        ``disabled`` in ``words``: true or false. ``yes``: as for `make`. Raises
        `UnknownKeyError`, `KeyFaultsError`, `KeyConflictError`, `KeyConsentError`,
        `StoreError`.
        """
        before = self._of_store(name)
        terms, faults = self._read(words, KeyTerms(before.rights, before.expires_at))
        if "name" in words:
            faults.append("name: a key keeps its name; remove it and add another")
        is_disabled = words.get("disabled", before.is_disabled)
        if not isinstance(is_disabled, bool):
            faults.append(f"disabled: {shown(is_disabled)} is neither true nor false")
        if not words:
            faults.append("nothing is to be changed; name at least one word")
        if faults:
            raise KeyFaultsError(faults)
        key = replace(
            before,
            rights=terms.rights,
            expires_at=terms.expires_at,
            is_disabled=bool(is_disabled),
        )
        self._ask(key, yes=yes)
        detail = change_words(key_body(before, self._clock), key_body(key, self._clock))
        action = "key edit"
        if key.is_disabled != before.is_disabled:
            action = "key disable" if key.is_disabled else "key enable"
        self._put(key, caller, action, detail)
        return key

    def rotate(
        self, name: str, words: Mapping[str, object], caller: Caller
    ) -> tuple[Key, str]:
        """Give a key a new text, and return it.

        The text so far is taken for ``grace`` more; with 0 what goes on with the key
        ends at once. Raises as `edit`.
        """
        before = self._of_store(name)
        grace_s = _grace_s(words)
        text = key_text(before.id, self._draw(SECRET_BYTES))
        key = replace(
            before,
            digest=digest_of(text),
            former_digest=before.digest if grace_s > 0 else b"",
            former_until=self._clock.now() + grace_s if grace_s > 0 else 0.0,
        )
        self._put(key, caller, "key rotate", f"grace {grace_s:g} s")
        return key, text

    def remove(self, name: str, caller: Caller) -> Key:
        """Remove a key. Raises `UnknownKeyError`, `KeyConflictError`, `StoreError`."""
        key = self._of_store(name)
        line = self._audit.line(caller, "key rm", _target(key))
        self._keyring.remove(key, line)
        self._audit.tell(line)
        return key

    def _ask(self, key: Key, *, yes: bool) -> None:
        """Refuse a first key, which has clients without one refused, unless ``yes``."""
        if yes or self._clients is None or self._keyring.are_keys_needed:
            return
        if key.rights.are_for_clients:
            raise KeyConsentError(self._clients.seen(), self._clients.watched_s)

    def _put(self, key: Key, caller: Caller, action: str, detail: str) -> None:
        line = self._audit.line(caller, action, _target(key), detail)
        self._keyring.put(key, line)
        self._audit.tell(line)

    def _read(
        self, words: Mapping[str, object], before: KeyTerms
    ) -> tuple[KeyTerms, list[str]]:
        others = {"name", "disabled"}
        terms = {word: words[word] for word in words if word not in others}
        return read_terms(terms, before, Dates(self._clock))

    def _of_store(self, name: str) -> Key:
        """Return the key with a name, or an id, that orders may change."""
        key = self.named(name)
        if self._keyring.is_of_file(key):
            message = (
                f"{key.name!r} is a key of OLLAMA_PROXY_KEYS_FILE; change it there"
            )
            raise KeyConflictError(message)
        return key

    def _taken_words(self, held: Key) -> str:
        if self._keyring.is_of_file(held):
            return f"name: {held.name!r} is a key of OLLAMA_PROXY_KEYS_FILE"
        return (
            f"name: there is a key {held.name!r} already; choose another name, or"
            f" `key edit {held.name}`, `key rotate {held.name}`"
        )

    def _free_id(self) -> KeyId:
        """Draw an id that no key has; of 2³² there are at most `MOST_KEYS` in use."""
        while True:
            key_id = KeyId(self._draw(ID_LETTERS // 2).hex())
            if self._keyring.by_id(key_id) is None:
                return key_id


def _target(key: Key) -> str:
    return f"{key.name} ({key.id})"


def _grace_s(words: Mapping[str, object]) -> float:
    faults = [
        f"{shown(word)}: only grace can be chosen" for word in {*words} - {"grace"}
    ]
    grace, grace_s = words.get("grace", GRACE_S), -1.0
    with contextlib.suppress(ValueError):
        grace_s = parse_duration(grace)
    if not 0 <= grace_s <= _LONGEST_GRACE_S:
        faults.append(f"grace: {shown(grace)} is not a time up to 30d; write 1h, or 0")
    if faults:
        raise KeyFaultsError(faults)
    return grace_s
