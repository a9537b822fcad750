"""What has come of an answer: where it ends, and what may be sent after it."""

import itertools

import pytest

from ollama_proxy.core.http.chunks import framed
from ollama_proxy.upstream.response_parser import (
    MAX_HEAD,
    ResponseError,
    ResponseParser,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
MEASURED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[a:b] for a, b in itertools.pairwise(places)]


def parsed(method: str, *parts: bytes, ends: bool = False) -> ResponseParser:
    parser = ResponseParser(method)
    for part in parts:
        parser.feed(part)
    if ends:
        parser.end()
    return parser


@pytest.mark.parametrize(
    ("method", "raw", "body"),
    [
        ("GET", MEASURED + b"hi", b"hi"),
        ("GET", CHUNKED + framed(b"hi") + LAST, b"hi"),
        ("HEAD", MEASURED, b""),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
        ("POST", b"HTTP/1.1 100 Continue\r\n\r\n" + MEASURED + b"hi", b"hi"),
        ("POST", b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + MEASURED + b"hi", b"hi"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_an_answer_ends_where_its_framing_says(
    method: str, raw: bytes, body: bytes, *, at_once: bool
) -> None:
    parts = [raw] if at_once else [raw[at : at + 1] for at in range(len(raw))]
    answer = parsed(method, *parts)

    assert b"".join(answer.pieces) == body
    assert (answer.complete, answer.reusable) == (True, True)
    assert not answer.between_chunks


@pytest.mark.parametrize(
    "raw",
    [
        MEASURED + b"hi" + MEASURED + b"no",
        MEASURED + b"hi and more",
        CHUNKED + framed(b"hi") + LAST + b"junk",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ],
)
def test_what_comes_after_an_answer_is_dropped_with_its_connection(raw: bytes) -> None:
    answer = parsed("GET", raw)

    assert answer.head is not None
    assert b"".join(answer.pieces) == b"hi"
    assert (answer.complete, answer.reusable) == (True, False)


EXTRA = [b"h", b"hi", b"\r\n", b"2\r\n", framed(b"hi") + LAST, MEASURED + b"hi"]
BODILESS = [
    ("HEAD", MEASURED),
    ("HEAD", CHUNKED),
    ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n"),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
]


@pytest.mark.parametrize("extra", EXTRA)
@pytest.mark.parametrize(("method", "head"), BODILESS)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_bytes_behind_an_answer_without_a_body_are_dropped_with_its_connection(
    method: str, head: bytes, extra: bytes, step: int
) -> None:
    raw = head + extra
    answer = parsed(method, *(raw[at : at + step] for at in range(0, len(raw), step)))

    assert answer.pieces == []
    assert not answer.between_chunks
    assert (answer.complete, answer.reusable) == (True, False)


@pytest.mark.parametrize("status", [b"099", b"000", b"001", b"99", b"0200", b"2000"])
def test_a_status_below_100_or_not_of_three_digits_is_an_error(status: bytes) -> None:
    with pytest.raises(ResponseError):
        parsed("GET", b"HTTP/1.1 " + status + b" X\r\n\r\n" + MEASURED + b"hi")


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip\r\n\r\nhi",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"X-A: 1\r\n Content-Length: 2\r\n\r\nhi",
        b"X-A: 1\rX-B: 2\r\nContent-Length: 2\r\n\r\nhi",
        b"X-A: 1\nX-B: 2\r\nContent-Length: 2\r\n\r\nhi",
        b"X-A: 1\x002\r\nContent-Length: 2\r\n\r\nhi",
        b"Transfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
    ],
)
def test_an_answer_that_can_be_read_in_two_ways_is_an_error(fields: bytes) -> None:
    with pytest.raises(ResponseError):
        parsed("GET", b"HTTP/1.1 200 OK\r\n" + fields)


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"1.2"])
def test_another_version_of_http_is_an_error(version: bytes) -> None:
    with pytest.raises(ResponseError):
        parsed("GET", MEASURED.replace(b"1.1", version) + b"hi")


def test_chunks_of_http_1_0_end_with_their_connection() -> None:
    old = CHUNKED.replace(b"1.1", b"1.0").replace(b"\r\n\r\n", b"\r\nConnection: ")
    answer = parsed("GET", old + b"keep-alive\r\n\r\n" + framed(b"hi") + LAST)

    assert answer.pieces == [b"hi"]
    assert not answer.reusable


def test_what_does_things_to_a_terminal_is_taken_out_of_a_reason() -> None:
    raw = MEASURED.replace(b"OK", b"O\x00K\x1b[2J \xc2\x9b1m\xff \xc3\xa9")
    answer = parsed("GET", raw + b"hi")

    assert answer.head is not None
    assert answer.head.reason == "OK[2J 1m é"


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    answer = parsed("GET", b"HTTP/1.1 200 OK\r\n\r\nhi", ends=True)

    assert answer.pieces == [b"hi"]
    assert (answer.complete, answer.reusable) == (True, False)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "closed the connection"),
        (MEASURED + b"h", "in the middle"),
        (CHUNKED + framed(b"hi"), "in the middle"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (CHUNKED + b"zz\r\nhi\r\n", "does not speak HTTP"),
        (
            b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "another",
        ),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_HEAD, "headers and no body"),
        (CHUNKED + b"0\r\nX: " + b"y" * MAX_HEAD, "headers and no body"),
    ],
)
def test_what_is_no_whole_answer_is_an_error(raw: bytes, said: str) -> None:
    with pytest.raises(ResponseError, match=said):
        parsed(
            "GET",
            *(raw[at : at + 65536] for at in range(0, len(raw), 65536)),
            ends=True,
        )


def test_a_trailer_does_not_become_a_header() -> None:
    answer = parsed("GET", CHUNKED + framed(b"hi") + b"0\r\nX-Late: 1\r\n\r\n")

    assert answer.head is not None
    assert "X-Late" not in answer.head.headers
