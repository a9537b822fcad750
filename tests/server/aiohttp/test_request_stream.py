"""A connection's requests: the output can be read in one way only."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.http.chunks import framed
from ollama_proxy.core.http.request_head import MAX_HEAD, RefusedRequestError
from ollama_proxy.server.aiohttp.request_stream import RequestStream
from tests.upstream.test_response_parser import split

GET = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
LAST = b"0\r\n\r\n"


def passed(*parts: bytes) -> tuple[bytes, RequestStream]:
    stream = RequestStream()
    return b"".join(map(stream.feed, parts)), stream


def refusal(*parts: bytes) -> RefusedRequestError:
    _, stream = passed(*parts)
    assert stream.refused is not None
    return stream.refused


@pytest.mark.parametrize(
    "trailer",
    [
        b"Authorization: Bearer injected\r\n",
        b"Expect: foo\r\nOrigin: http://evil.example\r\n",
        b"Content-Length: 5\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 5, 1000])
def test_a_trailer_is_dropped(trailer: bytes, step: int) -> None:
    raw = CHUNKED + framed(b"{}") + b"0\r\n" + trailer + b"\r\n" + GET % 1
    out, _ = passed(*(raw[at : at + step] for at in range(0, len(raw), step)))

    assert out == CHUNKED + framed(b"{}") + LAST + GET % 1


def test_extensions_of_chunks_and_spaces_behind_their_length_are_dropped() -> None:
    out, _ = passed(CHUNKED + b"02 ;a=b\r\n{}\r\n000;c\r\n\r\n")

    assert out == CHUNKED + framed(b"{}") + LAST


def test_what_follows_the_last_request_is_dropped() -> None:
    last = (GET % 1).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    out, stream = passed(last + GET % 2, GET % 3)

    assert out.startswith(last[:-2])
    assert out.count(b"GET /") == 1
    assert stream.refused is None


def test_line_breaks_between_requests_are_nothing() -> None:
    out, stream = passed(b"\r\n\r\n" + GET % 1 + b"\r\n" + GET % 2)

    assert out == GET % 1 + GET % 2
    assert stream.requests == 2


@pytest.mark.parametrize(
    "chunk",
    [
        b"zz\r\n{}\r\n",
        b"0x2\r\n{}\r\n",
        b"+2\r\n{}\r\n",
        b"-2\r\n{}\r\n",
        b"\r\n{}\r\n",
        b"2\n{}\r\n",
        b"2\r\n{}\n",
        b"2\r\n{}x\r\n",
        b"2;\x00\r\n{}\r\n",
        b"f" * 16 + b"\r\n{}\r\n",
        b"2;" + b"a" * 5000 + b"\r\n{}\r\n",
        b"0\r\nno header\r\n\r\n",
        b"0\r\nX-A: 1\n\r\n",
    ],
)
def test_a_body_that_is_none_is_refused_or_ends_the_connection(chunk: bytes) -> None:
    at_once, whole = passed(GET % 1 + CHUNKED + chunk + LAST + GET % 2)
    later, begun = passed(GET % 1 + CHUNKED, chunk + LAST + GET % 2)

    assert (at_once, whole.is_broken) == (GET % 1, False)
    assert whole.refused is not None
    assert whole.requests == 1
    assert later.startswith(GET % 1 + CHUNKED)
    assert (begun.refused, begun.is_broken) == (None, True)
    assert GET % 2 not in later


@pytest.mark.parametrize(
    "raw", [b"GET / HTTP/1.1\nHost: x\n\n", b"\nGET", b"GET / HTTP/1.1\r\nHost: x\n"]
)
def test_a_line_that_ends_without_cr_is_refused_at_once(raw: bytes) -> None:
    assert refusal(raw).status == 400


def test_what_speaks_tls_is_refused_at_once() -> None:
    assert refusal(b"\x16\x03\x01\x02\x00").status == 400


@pytest.mark.parametrize("begin", [b"GET /", b"GET / HTTP/1.1\r\nX-A: "])
def test_a_head_that_does_not_end_is_not_kept_for_ever(begin: bytes) -> None:
    parts = [begin, *[b"a" * 65536] * (MAX_HEAD // 65536)]

    assert refusal(*parts).status == 431


def test_trailers_that_do_not_end_are_not_read_for_ever() -> None:
    _, stream = passed(CHUNKED, LAST[:-2], *[b"X-A: 1\r\n" * 8192] * 17)

    assert stream.is_broken


def test_nothing_comes_out_behind_a_refusal() -> None:
    out, stream = passed(
        GET % 1, b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n" + GET % 2, GET % 3
    )

    assert out == GET % 1
    assert stream.refused is not None


class Behind:
    """A strict parser of the output."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.fields: list[bytes] = []

    def on_message_begin(self) -> None:
        self.bodies.append(b"")

    def on_header(self, name: bytes, _value: bytes) -> None:
        self.fields.append(name)

    def on_body(self, part: bytes) -> None:
        self.bodies[-1] += part


@given(
    bodies=st.lists(
        st.lists(st.binary(min_size=1, max_size=30), max_size=4), max_size=4
    ),
    cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=12),
    data=st.data(),
)
def test_however_requests_are_cut_up_their_bodies_are_the_same(
    bodies: list[list[bytes]], cuts: list[int], data: st.DataObject
) -> None:
    raw = b""
    for chunks in bodies:
        if data.draw(st.booleans()):
            raw += CHUNKED + b"".join(map(framed, chunks)) + b"0\r\nX-T: 1\r\n\r\n"
        else:
            raw += LENGTH % len(b"".join(chunks)) + b"".join(chunks)
    out, stream = passed(*split(raw, cuts))
    seen = Behind()
    httptools.HttpRequestParser(seen).feed_data(out)

    assert seen.bodies == [b"".join(chunks) for chunks in bodies]
    assert b"X-T" not in seen.fields
    assert stream.requests == len(bodies)


PIECES = [
    *(b"\r\n", b"\n", b"\r", b"0", b"2", b";", b":", b" ", b"{}", b"\x00", b"\xe9"),
    *(b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Content-Length: 2\r\n", b"Connection: close\r\n", b"Expect: x\r\n"),
    *(b"Upgrade: x\r\nConnection: upgrade\r\n", CHUNKED, framed(b"{}"), LAST),
]


@given(st.lists(st.sampled_from(PIECES), max_size=14))
def test_whatever_comes_out_is_read_by_a_strict_parser(parts: list[bytes]) -> None:
    out, _ = passed(*parts)

    httptools.HttpRequestParser(Behind()).feed_data(out)


TUNNEL = (
    b"GET /nodes/tunnel HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\n\r\n"
)


def test_what_follows_an_upgrade_passes_once_it_is_accepted() -> None:
    stream = RequestStream()
    assert stream.feed(TUNNEL) == TUNNEL
    stream.accept_upgrade()

    assert stream.feed(b"\x82\x80anything") == b"\x82\x80anything"
    assert (stream.refused, stream.is_broken, stream.is_in_body) == (None, False, False)


@pytest.mark.parametrize("parts", [(TUNNEL + GET % 1,), (TUNNEL, GET % 1)])
def test_what_follows_an_upgrade_too_early_is_no_request(
    parts: tuple[bytes, ...],
) -> None:
    out, stream = passed(*parts)

    assert out == TUNNEL
    assert stream.is_broken
    stream.accept_upgrade()
    assert stream.feed(GET % 2) == b""
