"""Several pools in the table of ``status``."""

from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from ollama_proxy.cli.pools_view import add_pool, pool_line, tells_more

INSTANCE: dict[str, Any] = {
    "slot": "big/0/one",
    "state": "ready",
    "stage": None,
    "in_flight": 2,
    "slots": 4,
    "idle_for_s": None,
    "url": "http://127.0.0.1:1",
    "error": None,
}
POOL: dict[str, Any] = {
    "name": "big",
    "serves": ["big*", "*:70b"],
    "ready": 1,
    "wanted": 2,
    "in_flight": 2,
    "waiting": 3,
    "instances": [INSTANCE],
    "offers": [{"name": "one", "state": "open", "reason": None, "ends_in_s": None}],
}


def shown(pool: dict[str, Any]) -> list[str]:
    """Return the rows that a terminal shows, without their padding."""
    out = StringIO()
    table = Table.grid(padding=(0, 2))
    add_pool(table, pool)
    Console(file=out, width=200).print(table)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_a_pool_is_summed_up_with_its_instances() -> None:
    assert shown(POOL) == [
        "pool big (big*, *:70b): 1 ready, 2 wanted, 2 in flight, 3 waiting",
        "big/0/one ready, 2 of 4 in flight, http://127.0.0.1:1",
    ]


def test_an_instance_that_starts_tells_its_stage_and_one_that_rests_how_long() -> None:
    starting = {**INSTANCE, "state": "starting", "stage": "pulling", "url": None}
    idle = {**INSTANCE, "in_flight": 0, "slots": None, "idle_for_s": 61.4}

    rows = shown({**POOL, "instances": [starting, idle]})[1:]

    assert rows == [
        "big/0/one starting, pulling",
        "big/0/one ready, 0 in flight, idle for 61 s, http://127.0.0.1:1",
    ]


def test_an_offer_that_is_not_tried_tells_why_and_for_how_long() -> None:
    full = {
        "name": "one",
        "state": "passed_over",
        "reason": "no room",
        "ends_in_s": 59.6,
    }
    off = {"name": "two", "state": "off", "reason": "key revoked", "ends_in_s": None}

    rows = shown({**POOL, "instances": [], "offers": [full, off]})[1:]

    assert rows == [
        "offer one is passed over for 60 s: no room",
        "offer two is off: key revoked",
    ]


def test_a_line_counts_instances_by_their_state() -> None:
    starting = {**INSTANCE, "state": "starting"}

    line = pool_line({**POOL, "instances": [INSTANCE, starting, INSTANCE]})

    assert line == "big: 2 ready, 1 starting, 2 in flight, 3 waiting"
    assert "nothing runs" in pool_line({**POOL, "instances": []})


def test_a_single_pool_is_shown_once_it_has_several_offers_or_instances() -> None:
    off = {"name": "two", "state": "off", "reason": "wrong key", "ends_in_s": None}

    assert not tells_more([POOL])
    assert tells_more([{**POOL, "offers": [*POOL["offers"], off]}])
    assert tells_more([{**POOL, "instances": [INSTANCE, INSTANCE]}])
    assert tells_more([POOL, POOL])


NODE: dict[str, Any] = {
    **INSTANCE,
    "slot": "house/attic",
    "state": "online",
    "node_id": "attic",
    "draining": False,
    "models": 3,
    "foreign": 1,
    "cpu": 0.25,
}


def test_a_node_tells_its_load() -> None:
    away = {**NODE, "state": "offline", "draining": True, "foreign": 0}

    rows = shown({**POOL, "instances": [NODE, away]})[1:]

    assert rows[0] == (
        "house/attic online, 2 of 4 in flight, 1 of others, 3 models, 25% of its"
        " processors busy, http://127.0.0.1:1"
    )
    assert rows[1].startswith("house/attic offline, draining, 3 models")


def test_of_many_nodes_the_first_are_shown_and_the_others_counted() -> None:
    rows = shown({**POOL, "instances": [NODE] * 33})

    assert len(rows) == 32
    assert rows[-1].startswith("and 3 more;")
