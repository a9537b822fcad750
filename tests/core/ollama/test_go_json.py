"""JSON is read as Go reads it: each expectation is a real Ollama's answer."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable

import pytest

from ollama_proxy.core.ollama.go_json import (
    Number,
    UnreadBodyError,
    read_members,
    read_value,
)
from ollama_proxy.core.ollama.go_syntax import EmptyBodyError, GoSyntaxError
from ollama_proxy.core.ollama.request_fields import read_fields
from tests.recorded import Recorded
from tests.recordings import ask_all, empty_ollama, load, odd_requests

RECORDED = load("odd_bodies")


def understood(body: bytes) -> str:
    """Return what Ollama's generate says of a body, its store being empty."""
    try:
        model = read_fields(body).model or ""
    except ValueError as error:
        return str(error)
    return f"model '{model}' not found" if model.isascii() else "invalid model name"


@pytest.mark.parametrize("request_", odd_requests(), ids=lambda request: request.name)
def test_an_odd_body_is_read_as_a_real_ollama_reads_it(request_: Recorded) -> None:
    answer = json.loads(RECORDED[request_.name]["body"].encode("latin-1"))

    assert understood(request_.body) == answer["error"]


def test_every_odd_body_has_its_recorded_answer() -> None:
    assert [request.name for request in odd_requests()] == list(RECORDED)


@pytest.mark.real_ollama
@pytest.mark.skipif(shutil.which("ollama") is None, reason="there is no `ollama`")
async def test_a_real_ollama_still_says_what_is_recorded() -> None:
    async with empty_ollama() as port:
        assert await ask_all(port, odd_requests()) == RECORDED


def test_nothing_at_all_is_told_from_something_broken() -> None:
    with pytest.raises(EmptyBodyError, match="EOF"):
        read_value(b" \n\t")
    with pytest.raises(GoSyntaxError, match="unexpected EOF"):
        read_value(b" [")


def test_a_value_keeps_equal_keys_and_numbers_as_they_were_written() -> None:
    assert read_value(b'{"a":1.50,"a":[true,null]} rest') == [
        ("a", Number("1.50")),
        ("a", [True, None]),
    ]


def test_members_are_what_go_would_keep_of_them() -> None:
    members = read_members(
        '{"A":1,"a":null,"b":{"C":1e2,"C":"x"},"ſ":"\\ud83d"}'.encode()
    )

    assert {name: bytes(raw) for name, raw in members.items()} == {
        "a": b"1",
        "b": b'{"C":"x"}',
        "s": '"\ufffd"'.encode(),
    }


def test_each_byte_that_is_no_text_is_one_replacement_character() -> None:
    assert (
        read_value(b'"\xe2\x82 \xf0\x9f \\udfff"') == "\ufffd\ufffd \ufffd\ufffd \ufffd"
    )


MEGABYTES = 32 * 1024 * 1024
A_MOMENT_S = 0.5  # ten times what it takes here
# Made when they are asked for: together they take half a gigabyte.
HOSTILE: dict[str, Callable[[], bytes]] = {
    "arrays": lambda: b"[" * MEGABYTES,
    "closed arrays": lambda: b"[[]," * MEGABYTES,
    "objects": lambda: b'{"a":' * MEGABYTES,
    "line ends": lambda: b'"' + b"\\n" * MEGABYTES,
    "bytes": lambda: b'"' + b"\xff" * MEGABYTES + b'"',
    "surrogates": lambda: b'"' + b"\\ud83d" * (MEGABYTES // 6) + b'"',
    "spaces": lambda: b" " * MEGABYTES,
    "digits": lambda: b"1" * MEGABYTES,
    "numbers": lambda: b"[" + b"0," * (MEGABYTES // 2),
    "members": lambda: b"{" + b'"":0,' * (MEGABYTES // 5),
    "closed members": lambda: b'{"":0' + b',"":0' * (MEGABYTES // 5 - 2) + b"}",
    "capital members": lambda: b'{"A":0' + b',"":0' * 200_000 + b"}",
    "an escaped model": lambda: b'{"Model":"' + b"\\n" * (MEGABYTES // 2) + b'"}',
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_costs_little(name: str) -> None:
    body = HOSTILE[name]()
    begun_at = time.process_time()
    with contextlib.suppress(GoSyntaxError, UnreadBodyError):
        read_value(body)
    with contextlib.suppress(ValueError, UnreadBodyError):
        read_fields(body)

    assert time.process_time() - begun_at < A_MOMENT_S


@pytest.mark.parametrize("field", ["prompt", "unknown"])
@pytest.mark.parametrize("depth", [999, 5_000])
def test_depth_that_go_takes_is_no_error_of_the_client(depth: int, field: str) -> None:
    nested = b"[" * depth + b"]" * depth
    body = b'{"Model":"m","%b":%b}' % (field.encode(), nested)

    with contextlib.suppress(UnreadBodyError):  # left to the instance
        assert read_fields(body).model == "m"


@pytest.mark.parametrize("key", ["model", "name", "source"])
def test_a_name_of_a_megabyte_is_none_that_is_looked_at(key: str) -> None:
    with pytest.raises(UnreadBodyError):
        read_fields(b'{"%b":"%b"}' % (key.encode(), b"m" * MEGABYTES))
