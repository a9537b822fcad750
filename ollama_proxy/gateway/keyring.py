"""Find the key that a request presents: those of the store, and those of a file.

All are in memory. A text written as ours names its key, so finding it takes one dict
access, however many keys there are; the digests are then compared in constant time.
Keys of a file may have any text, so they are found by its digest.
"""

import bisect
import hmac
from collections.abc import Callable, Collection, Iterator
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Key, KeyId, KeyStanding
from ollama_proxy.gateway.key_text import ID_IN_TEXT, digest_of
from ollama_proxy.store.ports import KeyStore

LONGEST_TEXT: Final = 512
"""Characters of a key that a person chose; a client may send 1 MB to be digested."""


class Keyring:
    """Holds every key by its id, and by its name.

    A change is stored before it takes effect. Keys of a file are not stored.
    """

    def __init__(self, store: KeyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._by_id: dict[str, Key] = {}
        self._by_name: dict[str, Key] = {}
        self._of_file: dict[bytes, Key] = {}
        self._on_ended: list[Callable[[Key], None]] = []
        self._on_needed: list[Callable[[], None]] = []
        stored = store.all_keys()
        self._names = sorted(key.name for key in stored)
        for key in stored:
            self._by_id[key.id] = self._by_name[key.name] = key
        # A damaged file may have lost the mark and not the keys.
        are_there = any(key.rights.are_for_clients for key in stored)
        self._are_needed = are_there or store.are_keys_needed()

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_name.values())

    def page(self, after: str, most: int) -> list[Key]:
        """Return the first keys by name whose names come after one; ``most`` of them.

        It takes as long among many, since the names are kept in order.
        """
        begin = bisect.bisect_right(self._names, after)
        return [self._by_name[name] for name in self._names[begin : begin + most]]

    @property
    def are_keys_needed(self) -> bool:
        """Tell whether there ever was a key for clients, here or in a file."""
        return self._are_needed

    def find(self, text: str) -> Key | None:
        """Return the key that has this text; None if none has.

        It may be disabled or expired: see `standing`.
        """
        if len(text) > LONGEST_TEXT:
            return None
        digest = digest_of(text)
        key = self._by_id.get(text[ID_IN_TEXT])
        if key is not None and (
            hmac.compare_digest(digest, key.digest) or self._is_former(digest, key)
        ):
            return key
        return self._of_file.get(digest)

    def standing(self, key: Key) -> KeyStanding:
        """Tell whether a key is taken now."""
        return key.standing(self._clock.now())

    def by_id(self, key_id: KeyId) -> Key | None:
        """Return the key with this id, as it is now; None if it is gone."""
        return self._by_id.get(key_id)

    def by_name(self, name: str) -> Key | None:
        """Return the key with this name."""
        return self._by_name.get(name)

    def is_of_file(self, key: Key) -> bool:
        """Tell whether a key stands in the file of keys, which its owner edits."""
        held = self._of_file.get(key.digest)
        return held is not None and held.id == key.id

    def on_ended(self, callback: Callable[[Key], None]) -> None:
        """Call back whenever a key is no longer taken because a person wants it so.

        It was removed or disabled, or its text was replaced without a time in which
        both are taken. A key that expires is not ended: its streams go on.
        """
        self._on_ended.append(callback)

    def on_needed(self, callback: Callable[[], None]) -> None:
        """Call back when the first key for clients is taken."""
        self._on_needed.append(callback)

    def put(self, key: Key, line: AuditLine) -> None:
        """Store a new or changed key with its line of the audit, then take it.

        Raises `StoreError`, and takes nothing.
        """
        self._store.put_key(key, line)
        if key.rights.are_for_clients:
            self._note_needed()
        before = self._by_id.get(key.id)
        self._hold(key)
        if before is not None and _ends(before, key, self._clock.now()):
            self._end(before)

    def remove(self, key: Key, line: AuditLine) -> None:
        """Remove a key from the store, then take it no longer. Raises `StoreError`."""
        self._store.drop_key(key.id, line)
        self._let_go(key)
        self._end(key)

    def use_file(self, keys: Collection[Key]) -> tuple[Key, ...]:
        """Take these keys of a file, and no others that stood in it.

        Return those that are not taken: a stored key has their id, name or text.
        """
        before = list(self._of_file.values())
        for key in before:
            self._let_go(key)
        stored = {key.digest for key in self}
        skipped = tuple(
            key
            for key in keys
            if key.digest in stored
            or key.id in self._by_id
            or key.name in self._by_name
        )
        left_out = {key.name for key in skipped}
        self._of_file = {key.digest: key for key in keys if key.name not in left_out}
        for key in self._of_file.values():
            self._hold(key)
        now = self._clock.now()
        for key in before:
            after = self._by_id.get(key.id)
            if after is None or _ends(key, after, now):
                self._end(key)
        return skipped

    def need_keys(self) -> None:
        """Remember for ever that requests need a key.

        Raises `StoreError`; they need one all the same, until this process ends.
        """
        is_known = self._are_needed
        self._note_needed()
        if not is_known:
            self._store.need_keys()

    def _note_needed(self) -> None:
        is_known, self._are_needed = self._are_needed, True
        for callback in self._on_needed if not is_known else ():
            callback()

    def _is_former(self, digest: bytes, key: Key) -> bool:
        is_former = hmac.compare_digest(digest, key.former_digest)
        return is_former and self._clock.now() < key.former_until

    def _hold(self, key: Key) -> None:
        if key.name not in self._by_name:
            bisect.insort(self._names, key.name)
        self._by_id[key.id] = self._by_name[key.name] = key

    def _let_go(self, key: Key) -> None:
        self._by_id.pop(key.id, None)
        if self._by_name.pop(key.name, None) is not None:
            del self._names[bisect.bisect_left(self._names, key.name)]

    def _end(self, key: Key) -> None:
        for callback in self._on_ended:
            callback(key)


def _ends(before: Key, after: Key, now: float) -> bool:
    """Tell whether a change ends what goes on with a key."""
    if after.is_disabled:
        return not before.is_disabled
    return before.digest != after.digest and now >= after.former_until
