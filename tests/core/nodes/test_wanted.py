"""Nodes pull what is wanted, where there is room, and nothing by default."""

from typing import Any

import pytest

from ollama_proxy.core.nodes.beat import Beat, parse_beat
from ollama_proxy.core.nodes.wanted import (
    MOST_AT_ONCE,
    RESERVE,
    UNKNOWN_SIZE,
    WantedRule,
    is_public,
    parse_wanted,
    sizes_of,
    wanted_models,
)
from tests.core.nodes.beats import entry, old_beat, our_beat, sent

GIB = 1 << 30
SIZES = {"small:latest": 1 * GIB, "big:latest": 40 * GIB, "mid:latest": 5 * GIB}
ALL = WantedRule(is_all=True)


def beat(**changed: Any) -> Beat:
    return parse_beat(sent(our_beat(**changed)))


def test_by_default_nothing_is_wanted() -> None:
    assert parse_wanted("none").is_none
    assert wanted_models(WantedRule(), SIZES, beat(disk_free=1 << 50)) == []


def test_all_that_any_node_has_goes_where_there_is_room_small_ones_first() -> None:
    roomy = wanted_models(ALL, SIZES, beat(disk_free=RESERVE + 46 * GIB))
    tight = wanted_models(ALL, SIZES, beat(disk_free=RESERVE + 46 * GIB - 1))

    assert roomy == ["small:latest", "mid:latest", "big:latest"]
    assert tight == ["small:latest", "mid:latest"]


def test_what_a_node_has_is_not_wanted_of_it() -> None:
    has = beat(disk_free=1 << 50, models=[entry("SMALL")])

    assert wanted_models(ALL, SIZES, has) == ["mid:latest", "big:latest"]


def test_a_list_is_wanted_in_its_order_and_an_unknown_size_needs_much_room() -> None:
    rule = parse_wanted("new, small")

    assert wanted_models(rule, SIZES, beat(disk_free=1 << 50)) == [
        "new:latest",
        "small:latest",
    ]
    tight = beat(disk_free=RESERVE + UNKNOWN_SIZE - 1)
    assert wanted_models(rule, SIZES, tight) == ["small:latest"]


@pytest.mark.parametrize("changed", [{"disk_free": None}, {"draining": True}])
def test_a_node_whose_room_is_not_known_or_that_drains_is_left_alone(
    changed: dict[str, Any],
) -> None:
    assert wanted_models(ALL, SIZES, beat(**changed)) == []


def test_a_former_agent_is_left_alone() -> None:
    assert wanted_models(ALL, SIZES, parse_beat(sent(old_beat()))) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama3", True),
        ("someone/llama3:8b", True),
        ("registry.ollama.ai/library/llama3", True),
        ("hf.co/someone/model-GGUF:Q4_K_M", True),
        ("10.0.0.1/a/b", False),
        ("10.0.0.1:8080/a/b:c", False),
        ("http://10.0.0.1/a/b", False),
        ("evil.example/a/b/c/d", False),
        ("evil.example:443/a/b", False),
    ],
)
def test_a_model_of_another_server_is_no_public_one(name: str, expected: bool) -> None:
    assert is_public(name) is expected


def test_no_node_has_others_ask_a_server_that_it_names() -> None:
    told = beat(models=[entry("10.0.0.1:8080/a/b:c", size=1), entry("llama3", size=2)])

    assert sizes_of([told]) == {"llama3:latest": 2}


def test_an_answer_names_few_models() -> None:
    sizes = {f"m{number}:latest": 1 for number in range(500)}

    assert len(wanted_models(ALL, sizes, beat(disk_free=1 << 50))) == MOST_AT_ONCE


def test_sizes_are_those_that_nodes_tell_without_models_of_the_cloud() -> None:
    beats = [
        parse_beat(sent(old_beat(models=["old"]))),
        beat(models=[entry("a", size=7), entry("b-cloud", remote_host="ollama.com")]),
        beat(models=[entry("a", size=9), entry("c", size=8)]),
    ]

    assert sizes_of(beats) == {"a:latest": 7, "c:latest": 8}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "none"),
        ("None", "none"),
        (" ALL ", "all"),
        ("llama3, qwen2.5:7b,,llama3:latest", "llama3:latest,qwen2.5:7b"),
    ],
)
def test_a_rule_is_written_as_words_or_names(text: str, shown: str) -> None:
    assert str(parse_wanted(text)) == shown
    assert str(parse_wanted(parse_wanted(text))) == shown


@pytest.mark.parametrize("text", ["a b", "a\nb,c", "x" * 300])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no name of a model"):
        parse_wanted(text)
