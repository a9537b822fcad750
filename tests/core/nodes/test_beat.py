"""Beats: what is read of the former ones and of ours, and what is refused."""

from typing import Any

import pytest

from ollama_proxy.core.nodes.beat import LARGEST_BEAT, BeatError, Gpu, parse_beat
from tests.core.nodes.beats import BOOT, agent_part, entry, old_beat, our_beat, sent


def test_a_former_beat_is_read_whole() -> None:
    beat = parse_beat(sent(old_beat()))

    assert (beat.node_id, beat.host_name, beat.port) == ("box", "box.lan", 8001)
    assert (beat.ipv4, beat.ipv6) == ("192.168.1.20", None)
    assert (beat.cpu, beat.memory) == (0.25, 0.5)
    assert dict(beat.models) == {
        "qwen2.5:7b": {"name": "qwen2.5:7b", "model": "qwen2.5:7b"},
        "llama3:latest": {"name": "llama3", "model": "llama3"},
    }
    assert beat.agent is None
    assert beat.loaded is None
    assert beat.labels == {}


@pytest.mark.parametrize(
    "beat",
    [
        {"node_id": "box", "port": 8001},
        {"node_id": "box"},
        old_beat(models=None, metadata=None, load=None, ipv4=None),
        old_beat(metadata={"hostname": None, "os": {"name": "x"}}, extra=[1]),
        old_beat(load={"cpu": None}),
        old_beat(ipv4="", ipv6=""),
        old_beat(agent=None),
    ],
)
def test_a_former_agent_may_leave_out_what_it_does_not_know(
    beat: dict[str, Any],
) -> None:
    assert parse_beat(sent(beat)).node_id == "box"


def test_a_beat_of_ours_tells_more() -> None:
    beat = parse_beat(sent(our_beat(seq=7)))

    agent = beat.agent
    assert agent is not None
    assert (agent.boot_id, agent.seq, agent.scheme) == (BOOT, 7, "http")
    assert (agent.slots, agent.in_flight, agent.is_draining) == (4, 1, False)
    assert agent.gpus == (Gpu("L4", 0.5, 1, 2),)
    assert beat.models["qwen2.5:7b"] == entry("qwen2.5:7b")
    assert beat.models.names == ["qwen2.5:7b", "llama3:latest"]
    assert beat.loaded == frozenset({"llama3:latest"})
    assert beat.labels == {"site": "home"}


def test_a_draining_agent_still_has_its_models() -> None:
    beat = parse_beat(sent(our_beat(draining=True) | {"models": []}))

    assert list(beat.models) == ["qwen2.5:7b", "llama3:latest"]


def test_an_entry_may_be_as_short_as_a_name() -> None:
    beat = parse_beat(sent(our_beat(models=[{"name": "M"}])))

    assert dict(beat.models) == {"m:latest": {"name": "M", "model": "M"}}


def test_what_is_in_memory_is_unknown_while_ollama_is_away() -> None:
    away = parse_beat(sent(our_beat(models=[], loaded=[], fault="it is\ndown\x1b")))

    assert away.loaded is None
    assert away.agent is not None
    assert away.agent.fault == "it is down?"


def test_a_load_above_one_is_one() -> None:
    assert parse_beat(sent(old_beat(load={"cpu": 1.7, "memory": 1}))).cpu == 1.0


def test_a_former_agent_may_write_what_the_former_hub_took() -> None:
    beat = parse_beat(
        sent(old_beat(port="8002", load={"cpu": "0.5"}, ipv6="fe80::1%eth0"))
    )

    assert (beat.port, beat.cpu, beat.ipv6) == (8002, 0.5, "fe80::1")


def test_the_same_models_are_not_read_again() -> None:
    first = parse_beat(sent(our_beat(seq=1)))

    again = parse_beat(sent(our_beat(seq=2)), lambda _: first)
    other = parse_beat(sent(our_beat(seq=3, models=[])), lambda _: first)

    assert again.models is first.models
    assert dict(other.models) == {}


def refusal(body: bytes) -> BeatError:
    with pytest.raises(BeatError) as caught:
        parse_beat(body)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    return caught.value


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 100_000, 422, "got `array`"),
        (b'{"x":' + b"[" * 100_000, 400, "not JSON"),
        (b'{"node_id":"box","load":{"cpu":NaN}}', 400, "not JSON"),
        (b'{"node_id":"box","port":1e999}', 422, "`$.port`"),
        (b"[]", 422, "got `array`"),
        (b"null", 422, "got `null`"),
        (sent({}), 422, "missing required field `node_id`"),
        (b" " * (LARGEST_BEAT + 1), 413, "up to 1 MiB"),
        (sent(old_beat("a\nb")), 422, "is no name for a node"),
        (sent(old_beat("a/b")), 422, "is no name for a node"),
        (sent(old_beat("")), 422, "is no name for a node"),
        (sent(old_beat("x" * 129)), 422, "is no name for a node"),
        (sent(old_beat("\u202e")), 422, "is no name for a node"),
        (sent({"node_id": 5}), 422, "`$.node_id`"),
        (sent(old_beat(port=0)), 422, "`$.port`"),
        (sent(old_beat(port=65536)), 422, "`$.port`"),
        (sent(old_beat(port="web")), 422, "`$.port`"),
        (sent(old_beat(port=True)), 422, "`$.port`"),
        (sent(old_beat(load={"cpu": "nan"})), 422, "`$.load.cpu`"),
        (sent(old_beat(load={"cpu": "inf"})), 422, "`$.load.cpu`"),
        (sent(old_beat(ipv4="::1")), 422, "'ipv4' is no such address"),
        (sent(old_beat(ipv4="box.lan")), 422, "'ipv4' is no such address"),
        (sent(old_beat(ipv4="1.2.3.4/8")), 422, "'ipv4' is no such address"),
        (sent(old_beat(ipv4="192.168.1.20:22")), 422, "'ipv4' is no such address"),
        (sent(old_beat(ipv6="fe80:1%eth0")), 422, "'ipv6' is no such address"),
        (sent(old_beat(load={"cpu": -0.1})), 422, "`$.load.cpu`"),
        (sent(old_beat(load=0.5)), 422, "`$.load`"),
        (sent(old_beat(metadata={"hostname": "a\nb"})), 422, "not one line"),
        (
            sent(old_beat(metadata={"hostname": "h" * 256})),
            422,
            "`$.metadata.hostname`",
        ),
        (sent(old_beat(models="all")), 422, "'models' is no list of names"),
        (sent(old_beat(models=[1])), 422, "'models' is no list of names"),
        (sent(old_beat(models=["a\nb"])), 422, "no name of a model"),
        (sent(old_beat(models=["a" * 257])), 422, "no name of a model"),
        (sent(old_beat(models=[" "])), 422, "no name of a model"),
        (sent(old_beat(models=["a"] * 100_000)), 422, "100000 models are too many"),
        (sent(our_beat(models=[{}] * 1001)), 422, "1001 models are too many"),
        (sent(our_beat(models=[{"name": "a\nb"}])), 422, "no name of a model"),
        (sent(our_beat(models=[{"name": "a", "size": -1}])), 422, "an entry that"),
        (sent(our_beat(models=[{"name": "a", "digest": 5}])), 422, "an entry that"),
        (sent(our_beat(models=["a"])), 422, "an entry that"),
        (sent(our_beat(models={"a": 1})), 422, "'agent.models' is no list"),
        (sent(our_beat(loaded=[{"name": "a\nb"}])), 422, "no name of a model"),
        (sent(our_beat(boot_id="x")), 422, "`$.agent.boot_id`"),
        (sent(our_beat(seq=0)), 422, "`$.agent.seq`"),
        (sent(our_beat(seq=2**63)), 422, "`$.agent.seq`"),
        (sent(our_beat(scheme="ftp")), 422, "`$.agent.scheme`"),
        (sent(our_beat(version="1\n2")), 422, "'agent.version' is not one line"),
        (sent(our_beat(slots=0)), 422, "`$.agent.slots`"),
        (sent(our_beat(in_flight=-1)), 422, "`$.agent.in_flight`"),
        (sent(our_beat(gpus=[{}] * 65)), 422, "`$.agent.gpus`"),
        (sent(our_beat(gpus=[{"name": "a\x1b[2J"}])), 422, "not one line"),
        (sent(our_beat(labels={"a b": "c"})), 422, "no name of a label"),
        (sent(our_beat(labels={"a": "c\n"})), 422, "the label 'a'"),
        (sent(our_beat(draining="yes")), 422, "`$.agent.draining`"),
        (sent(old_beat(agent={"seq": 1})), 422, "missing required field `boot_id`"),
    ],
)
def test_what_is_no_beat_is_refused_in_a_sentence(
    body: bytes, status: int, words: str
) -> None:
    error = refusal(body)

    assert error.status == status
    assert words in str(error)


def test_the_memory_of_a_beat_is_counted() -> None:
    few = parse_beat(sent(our_beat(models=[entry("a")])))
    many = parse_beat(sent(our_beat(models=[entry(f"m{n}") for n in range(100)])))

    assert many.kept_bytes - few.kept_bytes > 99 * len(sent(entry("m1")))
    assert agent_part()["seq"] == 1
