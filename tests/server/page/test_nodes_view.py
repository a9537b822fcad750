"""What the page tells of the nodes of a hub."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ollama_proxy.server.page.nodes_view import MOST_ROWS, NodeView, nodes_view
from ollama_proxy.server.page.rendering import html
from ollama_proxy.server.page.view import Viewer, page_view
from tests.fakes.nodes import listed_node
from tests.server.page.bodies import instance, offer, pool, status

HOSTILE = "<script>alert(1)</script>"


def row(**fields: Any) -> NodeView:
    return nodes_view([listed_node(**fields)]).rows[0]


def test_a_node_tells_what_the_former_dashboard_told() -> None:
    told = row(active_jobs=2, failure_count=1)

    assert (told.name, told.state, told.models) == ("box", "online", "llama3:latest")
    assert (told.cpu, told.memory) == ("25 %", "50 %")
    assert (told.jobs, told.failures, told.seen) == ("2", "1", "4 s ago")
    assert told.place == "http://192.0.2.7:8001"


@pytest.mark.parametrize(
    ("fields", "state", "words"),
    [
        ({}, "online", "it takes requests"),
        ({"draining": True}, "draining", "it gets no new requests"),
        ({"status": "offline", "draining": True}, "offline", "has not beaten"),
        ({"status": "degraded"}, "degraded", "one try each 30 s"),
    ],
)
def test_a_state_is_said_in_words(
    fields: dict[str, Any], state: str, words: str
) -> None:
    told = row(**fields)

    assert told.state == state
    assert words in told.state_words


def test_a_pull_is_shown_with_a_bar() -> None:
    told = row(pulling={"name": "big:latest", "completed": 1, "total": 4})
    begun = row(pulling={"name": "big:latest", "completed": 0, "total": 0})

    assert told.pulling == "pulls big:latest"
    assert told.bar is not None
    assert (told.bar.value, told.bar.label) == (0.25, "pull of big:latest")
    assert (begun.pulling, begun.bar) == ("pulls big:latest", None)
    assert (row().pulling, row(pulling=None).bar) == ("", None)


def test_the_host_is_named_where_the_node_has_another_name() -> None:
    assert row(metadata={"hostname": "a.lan"}, url=None).place == "a.lan"


def test_many_models_are_cut_and_counted() -> None:
    assert row(models=[f"m{number}" for number in range(15)]).models.endswith("3 more")
    assert row(models=[]).models == "none"


def test_figures_count_states_and_jobs() -> None:
    nodes = [
        listed_node("a", active_jobs=2),
        listed_node("b", status="offline", active_jobs=1),
    ]

    assert nodes_view(nodes).figures == (
        ("online", 1),
        ("offline", 1),
        ("degraded", 0),
        ("jobs", 3),
    )


def test_of_a_thousand_nodes_those_with_trouble_are_shown_first() -> None:
    nodes = [listed_node(f"n{number:04}") for number in range(1000)]
    nodes[700]["status"] = "offline"
    nodes[900]["problem"] = "its Ollama does not answer"

    told = nodes_view(nodes)

    assert len(told.rows) == MOST_ROWS
    assert [one.name for one in told.rows[:3]] == ["n0700", "n0900", "n0000"]
    assert told.left_out.startswith("900 nodes more")


def test_nodes_are_no_machines_of_a_pool() -> None:
    node = instance(node_id="box", state="online")
    body = status(pool(node, offers=[offer(name="house", backend="hub")]))

    told = page_view(body, Viewer(), [listed_node()])

    assert told.pools[0].machines == ()
    assert told.pools[0].served_by == "1 node of the hub serves it."
    assert told.nodes is not None


def test_without_a_hub_nothing_is_told_of_nodes() -> None:
    told = page_view(status(pool()), Viewer())

    assert told.nodes is None
    assert told.pools[0].served_by.startswith("No machine is up")


def test_control_characters_are_shown() -> None:
    assert "\x1b" not in row(node_id="a\x1b[2Jb", models=["\x1b"]).name


def test_no_text_of_a_node_is_markup() -> None:
    node = listed_node(
        f"{HOSTILE}n",
        metadata={"hostname": f"{HOSTILE}h"},
        models=[f"{HOSTILE}m"],
        url=f"{HOSTILE}u",
        problem=f"{HOSTILE}p",
        pulling={"name": f"{HOSTILE}q", "completed": 1, "total": 2},
    )
    shown = html(
        "page.html",
        view=page_view(status(pool()), Viewer(), [node]),
        at=datetime.fromtimestamp(0, UTC),
        is_still=True,
    ).decode()

    assert HOSTILE not in shown
    assert shown.count("&lt;script") == 7  # that of the pull names its bar, too
