"""Hostile beats: refused in a sentence or taken whole, in bounded memory.

``BEATS=100000 pytest tests/hub/test_hostile_beats.py`` tries as many; the seed is told.
"""

import copy
import gc
import json
import os
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from ollama_proxy.core.nodes.beat import BeatError, parse_beat
from ollama_proxy.hub.beat_rules import RegistryLimits
from ollama_proxy.hub.ports import Sender
from tests.core.nodes.beats import entry, old_beat, our_beat, sent
from tests.hub.nodes import Hub

BEATS = int(os.environ.get("BEATS", "3000"))
SEED = int(os.environ.get("SEED", "18"))
PEERS = [Sender(f"192.168.1.{n}") for n in range(20)]
STATUSES = {400, 403, 409, 413, 422, 503}

NASTY: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    10**40,
    1e308,
    "",
    " ",
    "a\nb",
    "\x1b[2J",
    "\u202e",
    "../../etc/passwd",
    "http://169.254.169.254/",
    "169.254.169.254",
    "::ffff:127.0.0.1",
    "fe80::1%eth0",
    "x" * 5000,
    [],
    {},
    [[]],
    {"a": {"b": [1]}},
    [None],
    ["a\nb"],
    [{"name": "\x00"}],
    [{"name": 1}],
    [{"name": "m", "size": -5, "digest": []}],
]

CONTROLS = {*range(32), *range(127, 160)}


def mutated(beat: dict[str, Any], rng: random.Random) -> bytes:
    """Return a beat's body with something of it replaced, removed, doubled or cut."""
    for _ in range(rng.randint(1, 3)):
        part = beat
        while rng.random() < 0.5:
            inner = [value for value in part.values() if isinstance(value, dict)]
            if not inner:
                break
            part = rng.choice(inner)
        key = rng.choice([*part, "new"]) if part else "new"
        match rng.randrange(4):
            case 0:
                part.pop(key, None)
            case 1:
                part[key] = copy.deepcopy(rng.choice(NASTY))
            case 2:
                copied = copy.deepcopy(part.get(key))
                part[rng.choice(["models", "agent", "node_id", "x"])] = copied
            case 3 if isinstance(part.get(key), list):
                part[key] = (part[key] * 600)[: rng.choice([2, 64, 65, 1000, 1001])]
            case _:
                part[str(rng.choice(NASTY))[:50]] = copy.deepcopy(rng.choice(NASTY))
    body = bytearray(sent(beat))
    if rng.random() < 0.3:
        for _ in range(rng.randint(1, 4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
    if rng.random() < 0.1:
        del body[rng.randrange(len(body)) :]
    return bytes(body)


def refusal_of(hub: Hub, body: bytes, sender: Sender) -> BeatError | None:
    """Have a beat taken in; return its refusal, if it is refused."""
    try:
        beat = parse_beat(body, hub.registry.last_beat)
        hub.registry.beat(beat, sender)
    except BeatError as error:
        return error
    return None


def _status_of(hub: Hub, body: bytes) -> int:
    refusal = refusal_of(hub, body, PEERS[0])
    return 200 if refusal is None else refusal.status  # an error would hold the beat


def is_one_line(text: str) -> bool:
    return not CONTROLS & set(map(ord, text))


def check_shown(hub: Hub) -> None:
    """Check that what is told of nodes is as any list or terminal can show it."""
    for shown in hub.registry.listed():
        json.loads(json.dumps(shown))
        texts = [shown["node_id"], shown["metadata"]["hostname"], shown["problem"]]
        texts += [*shown["models"], *shown["labels"], *shown["labels"].values()]
        assert all(is_one_line(text) for text in texts), shown
        assert shown["url"] == f"http://{_peer_of(shown['url'])}:{shown['port']}"


def _peer_of(url: str) -> str:
    host = url.removeprefix("http://").rpartition(":")[0]
    assert host in {peer.peer for peer in PEERS}, url
    return host


def test_mutated_beats_are_refused_in_a_sentence_or_taken_whole() -> None:
    rng, hub = random.Random(SEED), Hub()
    taken = 0
    for number in range(BEATS):
        name = f"n{rng.randrange(50)}"
        beat = our_beat(name, number + 1) if rng.random() < 0.6 else old_beat(name)
        body = mutated(beat, rng)
        refusal = refusal_of(hub, body, rng.choice(PEERS))
        if refusal is None:
            taken += 1
        else:
            assert refusal.status in STATUSES, body
            assert is_one_line(str(refusal)), body
            assert len(str(refusal)) < 800
        if number % 500 == 0:
            check_shown(hub)
            hub.wait(1)
    check_shown(hub)

    assert taken > BEATS // 20, "the mutations are so wild that none is taken"
    assert taken < BEATS


@pytest.mark.parametrize(
    "models",
    [
        lambda name: [entry(f"{name}-{n}") for n in range(1000)],
        lambda name: [f"{name}-{'x' * 200}-{n}" for n in range(1000)],
    ],
    ids=["entries", "names"],
)
def test_what_many_nodes_tell_takes_no_more_memory_than_is_allowed(
    models: Callable[[str], list[Any]],
) -> None:
    most = 4 << 20
    hub = Hub(limits=RegistryLimits(most_bytes=most))
    bodies = []
    for node in range(40):
        told = models(f"n{node}")
        is_ours = isinstance(told[0], dict)
        beat = our_beat(f"n{node}", models=told) if is_ours else None
        bodies.append(sent(beat or old_beat(f"n{node}", models=told)))
    tracemalloc.start()
    try:
        statuses = {_status_of(hub, body) for body in bodies}
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert statuses == {200, 503}
    assert held < 2 * most, "what is counted is not what is held"


def test_a_flood_of_names_is_bounded_and_known_nodes_go_on() -> None:
    hub = Hub(limits=RegistryLimits(most_nodes=100))
    hub.ours("mine", seq=1)
    bodies = [sent(old_beat(f"flood{number}")) for number in range(1000)]
    statuses = [_status_of(hub, body) for body in bodies]

    assert statuses == [200] * 99 + [503] * 901
    assert hub.ours("mine", seq=2)["accepted"] == 2
    hub.wait(1)
    assert len(hub.store.remembered_nodes()) == 100


def test_boots_without_end_fill_neither_memory_nor_the_store() -> None:
    hub = Hub()
    for number in range(1, 2000):
        hub.ours(seq=1, boot_id=f"{number:032x}")
    hub.wait(1)

    (kept,) = hub.store.remembered_nodes()
    assert len(kept.displaced) == 8
