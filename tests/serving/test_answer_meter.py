"""Metering an answer: what is counted, what is held, and what it costs a token."""

import json
import time
from collections.abc import Callable
from typing import ClassVar, NamedTuple, cast

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from ollama_proxy.core.access.token_figures import Tokens
from ollama_proxy.core.http.chunks import framed
from ollama_proxy.core.ollama.activity import NO_USE
from ollama_proxy.serving.answer_meter import AnswerMeter, ignore_growth
from ollama_proxy.serving.client_writer import Asked, ClientWriter, StartedResponse
from ollama_proxy.serving.metered_writer import MeteredWriter
from tests.core.access.test_token_figures import ANTHROPIC, OPENAI, RESPONSES

DONE = {"done": True, "done_reason": "stop"}
FIGURES = {"prompt_eval_count": 26, "eval_count": 298}
LAST = json.dumps({"message": {"content": ""}} | DONE | FIGURES).encode() + b"\n"
TOKEN = b'{"message":{"content":"a"},"done":false}\n'
NDJSON, SSE = "application/x-ndjson", "text/event-stream"


class Head(NamedTuple):
    """The head of an answer."""

    status: int
    headers: CIMultiDictProxy[str]
    reason: str | None = "OK"


def metered(
    content_type: str = NDJSON,
    route: str = "/api/chat",
    *,
    status: int = 200,
    grow: Callable[[int], None] = ignore_growth,
    encoding: str | None = None,
) -> AnswerMeter:
    headers = CIMultiDict({"Content-Type": content_type})
    if encoding is not None:
        headers["Content-Encoding"] = encoding
    meter = AnswerMeter(route, grow)
    meter.begin(Head(status, CIMultiDictProxy(headers)))
    return meter


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("tokens", [0, 1, 15, 16, 17, 47, 48, 49, 500])
def test_the_figures_of_the_last_chunk_count(tokens: int) -> None:
    meter = metered()
    meter.take([TOKEN] * tokens + [LAST])

    assert meter.tokens(lambda: 400) == Tokens(26, 298)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 60, 100, 5000, 70_000])
def test_an_answer_may_arrive_in_pieces_of_any_size(size: int) -> None:
    meter = metered()
    for piece in pieces_of(TOKEN * 3000 + LAST, size):
        meter.take([piece])

    assert meter.tokens(lambda: 0) == Tokens(26, 298)


@pytest.mark.parametrize("tokens", [0, 1, 15, 16, 17, 48, 49, 50, 500])
def test_without_figures_a_chunk_is_a_token_and_four_bytes_of_the_prompt(
    tokens: int,
) -> None:
    meter = metered()
    meter.take([TOKEN] * tokens)

    assert meter.tokens(lambda: 400) == Tokens(100, tokens, 100 + tokens)


def test_what_ends_an_openai_stream_is_no_token() -> None:
    meter = metered(SSE, "/v1/chat/completions")
    meter.take([b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'] * 100)
    meter.take([b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'])
    meter.take([b"data: [DONE]\n\n"])

    assert meter.tokens(lambda: 400) == Tokens(100, 100, 200)


def test_a_broken_message_tells_its_prompt_at_its_beginning() -> None:
    start = (
        b'event: message_start\ndata: {"type":"message_start","message":'
        b'{"usage":{"input_tokens":7,"output_tokens":0}}}\n\n'
    )
    meter = metered(SSE, "/v1/messages")
    meter.take([start, b"event: content_block_start\ndata: {}\n\n"])
    meter.take([b'event: content_block_delta\ndata: {"delta":{"text":"a"}}\n\n'] * 90)

    assert meter.tokens(lambda: 400) == Tokens(7, 90, 97)


def test_a_compressed_answer_is_estimated() -> None:
    meter = metered(encoding="gzip")
    meter.take([TOKEN, LAST])

    assert meter.tokens(lambda: 400).prompt == 100
    assert meter.tokens(lambda: 400).estimated > 0


def test_an_answer_at_once_without_figures_counts_by_its_bytes() -> None:
    meter = metered("application/json", "/v1/audio/transcriptions")
    for piece in pieces_of(b'{"text":"%b"}' % (b"a" * 400_000), 4096):
        meter.take([piece])

    assert meter.tokens(lambda: 0).output == pytest.approx(100_000, rel=0.01)


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
def test_what_an_instance_refuses_takes_no_tokens(status: int) -> None:
    meter = metered(status=status)
    meter.take([b'{"error":"no"}'])

    assert meter.tokens(lambda: 400) == Tokens()


def test_a_request_without_an_answer_had_its_prompt_read() -> None:
    assert AnswerMeter("/api/chat").tokens(lambda: 400) == Tokens(100, 0, 100)


def test_a_second_answer_counts_alone() -> None:
    meter = metered()
    meter.take([TOKEN] * 100)
    meter.begin(Head(200, CIMultiDictProxy(CIMultiDict({"Content-Type": NDJSON}))))
    meter.take([TOKEN])

    assert meter.tokens(lambda: 0) == Tokens(0, 1, 1)


def test_a_growing_stream_tells_how_far_it_has_come() -> None:
    told: list[int] = []
    meter = metered(grow=told.append)
    meter.take([TOKEN] * 1000)

    assert told == sorted(told)
    assert 950 < told[-1] <= 1000
    assert len(told) < 50


def test_pieces_of_an_answer_at_once_are_no_tokens() -> None:
    told: list[int] = []
    meter = metered("application/json", grow=told.append)
    meter.take([b" " * 4096] * 1000)

    assert told == []


@pytest.mark.parametrize("size", [1, 300, 4100, 4300, 60_000, 300_000])
def test_what_is_held_is_bounded(size: int) -> None:
    meter = metered()
    for _ in range(300):
        meter.take([b"a" * size])
        assert len(meter.ends) <= 49
        assert sum(map(len, meter.ends)) <= 49 * 4200 + 128 * 1024


class Transport:
    """A client's connection that takes everything."""

    def write(self, data: bytes) -> None:
        """Take it."""

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 1

    def is_closing(self) -> bool:
        return False


class Request:
    """A client's request."""

    method = "POST"
    transport = Transport()


class Response:
    """A response that is framed in chunks."""

    headers: ClassVar = {"Transfer-Encoding": "chunked"}


def touch() -> None:
    """Do nothing."""


def writers(meter: AnswerMeter) -> tuple[ClientWriter, MeteredWriter]:
    asked, response = cast("Asked", Request()), cast("StartedResponse", Response())
    plain = ClientWriter(asked, response, touch, NO_USE, 60.0)
    return plain, MeteredWriter(asked, response, touch, NO_USE, 60.0, meter)


@pytest.mark.parametrize("in_chunks", [True, False])
def test_the_writer_of_a_key_meters_both_ways_of_writing(*, in_chunks: bool) -> None:
    meter = metered()
    _, writer = writers(meter)
    for data in [*[TOKEN] * 100, LAST]:
        assert not (
            writer.write_chunk(framed(data)) if in_chunks else writer.take([data])
        )

    assert meter.tokens(lambda: 0) == Tokens(26, 298)
    assert writer.last.endswith(LAST)


@pytest.mark.parametrize("size", [1, 2, 9, 60])
def test_figures_split_over_framed_chunks_are_joined(size: int) -> None:
    meter = metered()
    _, writer = writers(meter)
    for piece in pieces_of(TOKEN * 5 + LAST, size):
        writer.write_chunk(framed(piece))

    assert meter.tokens(lambda: 0) == Tokens(26, 298)


@pytest.mark.usefixtures("no_collector")
def test_a_metered_chunk_costs_little_more() -> None:
    """Some 60 ns; the bound leaves room for a busy machine."""
    plain, writer = writers(metered())
    chunk, costs = framed(TOKEN), []
    for write in (plain.write_chunk, writer.write_chunk):
        best = 1.0
        for _ in range(10):
            begun = time.process_time()
            for _ in range(20_000):
                write(chunk)
            best = min(best, (time.process_time() - begun) / 20_000)
        costs.append(best)

    assert (costs[1] - costs[0]) * 1e9 < 250


@pytest.mark.parametrize("size", [1, 5, 30])
def test_small_pieces_are_counted_one_by_one(size: int) -> None:
    meter = metered()
    meter.take([b"a" * size] * 1000)

    assert meter.tokens(lambda: 0).output == 1000
    assert sum(map(len, meter.ends)) < 4096


@pytest.mark.parametrize("size", [1, 30, 5000, 100_000])
def test_the_bytes_of_an_answer_at_once_are_counted_whatever_its_pieces(
    size: int,
) -> None:
    meter = metered("application/json", "/v1/audio/transcriptions")
    meter.take([b"a" * size] * 200)

    assert meter.tokens(lambda: 0).output == size * 200 // 4


@pytest.mark.parametrize("size", [1, 3, 17, 100, 600])
@pytest.mark.parametrize(
    ("route", "end"),
    [
        ("/v1/chat/completions", OPENAI),
        ("/v1/responses", RESPONSES),
        ("/v1/messages", ANTHROPIC),
    ],
)
def test_events_may_arrive_in_pieces_of_any_size(
    route: str, end: bytes, size: int
) -> None:
    meter = metered(SSE, route)
    for piece in pieces_of(b'data: {"delta":"a"}\n\n' * 300 + end, size):
        meter.take([piece])

    assert meter.tokens(lambda: 0) == Tokens(26, 298)
