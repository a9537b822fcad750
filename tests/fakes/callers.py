"""Callers with keys, without a keyring: a request's ``Bearer`` is a key's name."""

import pytest

from ollama_proxy.core.access.facts import AccessFacts
from ollama_proxy.core.access.keys import Caller, Key, KeyId, Rights

WAYS = pytest.mark.parametrize("way", ["plain", "aiohttp"])
"""Runs a test on both ways in; see `by_way`."""


class Callers:
    """Identifies callers by name; one without a key is known by its address."""

    def __init__(self, **rights: Rights) -> None:
        self.keys = {
            name: Key(KeyId(f"{number:08x}"), name, b"", its)
            for number, (name, its) in enumerate(rights.items())
        }

    def __call__(self, facts: AccessFacts) -> Caller:
        name = facts.headers.get("Authorization", "").removeprefix("Bearer ")
        return Caller(facts.peer, self.keys.get(name))


def bearer(name: str) -> dict[str, str]:
    """Return the header of a request that a caller sends."""
    return {"Authorization": f"Bearer {name}"}


def by_way(way: str, name: str = "ci", **more: str) -> dict[str, str]:
    """Return headers of a caller with which a request takes one way in.

    The fast path leaves a request with an Origin to aiohttp.
    """
    origin = {"Origin": "http://localhost"} if way == "aiohttp" else {}
    return {**bearer(name), **origin, **more}
