"""Requests of keys, for tests of what becomes of them: their User-Agent names the key.

How a key is found and checked is tested elsewhere.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from ollama_proxy.core.access.keys import Caller, Key, KeyId, Rights
from ollama_proxy.server.access import AccessControl


def key(name: str = "ci", **rights: Any) -> Key:
    """Return a key with these rights."""
    return Key(KeyId(name.ljust(8, "x")), name, b"", Rights(**rights))


def as_key(name: str) -> dict[str, str]:
    """Return the header of a request of a key."""
    return {"User-Agent": name}


def with_keys(monkeypatch: pytest.MonkeyPatch, *keys: Key) -> Mapping[str, Key]:
    """Have each request be one of the key that its User-Agent names, if one is."""
    known = {one.name: one for one in keys}

    def check(_self: AccessControl, facts: Any) -> Caller:
        return Caller(facts.peer, known.get(facts.headers.get("User-Agent", "")))

    monkeypatch.setattr(AccessControl, "check", check)
    return known
