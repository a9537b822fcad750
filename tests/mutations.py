"""Requests with unforeseen faults: good and bad ones, changed at random."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from tests.asleep_requests import asleep_requests
from tests.recorded import Recorded
from tests.taken_requests import taken_requests

_NOT_ASKED = frozenset({"/api/pull", "/api/push"})  # they go out on the network
_JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    5,
    1.5,
    1e300,
    10**20,
    "",
    "x",
    "5m",
    "soon",
    "high",
    "aGk=",
    "a",
    "{",
    '{"a":1}',
    "a/b/c/d",
    "m:cloud:cloud",
    "é<&>\u2028\x01",
    "data:;base64,aGk=",
    [],
    ["x"],
    [5],
    [None],
    {},
    {"a": 1},
    {"type": "text", "text": "a"},
    {"url": "http://x"},
    {"type": "image", "source": {"type": "base64", "data": "aGk"}},
)


def mutated_requests(seed: int, count: int) -> Iterator[Recorded]:
    """Yield requests; the same for the same seed."""
    rng = random.Random(seed)
    begun = []
    for request in (*asleep_requests(), *taken_requests()):
        if request.method == "POST" and request.target not in _NOT_ASKED:
            try:
                begun.append((request.target, json.loads(request.body)))
            except ValueError:
                continue
    for at in range(count):
        path, value = rng.choice(begun)
        body = _broken(rng, json.dumps(_changed(rng, value)).encode())
        yield Recorded(f"{at} {path} {body!r}", "POST", path, body)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from _places(inner, (*path, key))


def _changed(rng: random.Random, value: Any) -> Any:
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(list(_places(value)))
        if not path:
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        junk, how = copy.deepcopy(rng.choice(_JUNK)), rng.random()
        if how < 0.1:
            del holder[path[-1]]
        elif how < 0.2 and isinstance(holder, dict):
            holder[path[-1].upper()] = junk
        else:
            holder[path[-1]] = junk
    return value


def _broken(rng: random.Random, body: bytes) -> bytes:
    how, at = rng.random(), rng.randrange(len(body) + 1)
    if how < 0.08:
        return body[:at]
    if how < 0.16:
        return body[:at] + bytes([rng.choice(b'{}[],:"\\ x0\xff\n')]) + body[at + 1 :]
    if how < 0.2:
        return body + rng.choice((b"\x00", b"{}", b"x"))
    return body
