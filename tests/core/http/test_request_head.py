"""Heads of requests: one way to read each, or a refusal as Go has it."""

import httptools
import pytest

from ollama_proxy.core.http.request_head import (
    _METHODS,
    MAX_FIELDS,
    RefusedRequestError,
    RequestHead,
    is_beginning,
    is_host,
    read_head,
)

HOST = b"Host: localhost"
GET = b"GET / HTTP/1.1"
POST = b"POST /api/chat HTTP/1.1"
CHUNKED = b"Transfer-Encoding: chunked"


def head(*lines: bytes) -> RequestHead:
    return read_head(list(lines))


def start(line: bytes) -> bytes:
    return head(line, HOST).raw.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (400, (b"GET /", HOST)),
        (400, (b"GET  HTTP/1.1", HOST)),
        (400, (b"GET / x HTTP/1.1", HOST)),
        (400, (b"GET\t/\tHTTP/1.1", HOST)),
        (400, (b"G@T / HTTP/1.1", HOST)),
        (400, (b"GET / http/1.1", HOST)),
        (400, (b"GET / HTTP/1.10", HOST)),
        (505, (b"GET / HTTP/2.0", HOST)),
        (505, (b"GET / HTTP/0.9", HOST)),
        (400, (b"GET /\x01 HTTP/1.1", HOST)),
        (400, (b"GET /\x7f HTTP/1.1", HOST)),
        (400, (b"GET api/version HTTP/1.1", HOST)),
        (400, (b"GET * HTTP/1.1", HOST)),
        (400, (b"GET ftp://localhost/ HTTP/1.1", HOST)),
        (400, (b"GET http://a@localhost/ HTTP/1.1", HOST)),
        (400, (b"GET http:/// HTTP/1.1", HOST)),
        (400, (GET,)),
        (400, (GET, HOST, HOST)),
        (400, (GET, b"Host: a b")),
        (400, (GET, b"Host: a<b>")),
        (400, (GET, HOST, b"X A: 1")),
        (400, (GET, HOST, b"X-A : 1")),
        (400, (GET, HOST, b" X-A: 1")),
        (400, (GET, HOST, b"X-A")),
        (400, (GET, HOST, b": 1")),
        (400, (GET, HOST, b"X-A: Bearer KEY\x01")),
        (400, (GET, HOST, b"X-A: a\rb")),
        (400, (GET, HOST, b"X-A: a\x00b")),
        (400, (GET, HOST, b"User-Agent: a", b"user-agent: b")),
        (431, (GET, HOST, *[b"X-A: 1"] * MAX_FIELDS)),
        (417, (GET, HOST, b"Expect: foo")),
        (417, (GET, HOST, b"Expect: foo", b"Expect: 100-continue")),
        (417, (b"GET / HTTP/1.0", b"Expect: foo")),
        (501, (POST, HOST, b"Transfer-Encoding: gzip, chunked")),
        (501, (POST, HOST, b"Transfer-Encoding: chunked, chunked")),
        (501, (POST, HOST, b"Transfer-Encoding: gzip")),
        (501, (POST, HOST, b"Transfer-Encoding: identity")),
        (501, (POST, HOST, b"Transfer-Encoding:")),
        (501, (POST, HOST, CHUNKED, CHUNKED)),
        (400, (b"POST / HTTP/1.0", b"Connection: keep-alive", CHUNKED)),
        (400, (POST, HOST, CHUNKED, b"Content-Length: 2")),
        (400, (POST, HOST, b"Content-Length: 2", b"Content-Length: 2")),
        (400, (POST, HOST, b"Content-Length: 2, 2")),
        (400, (POST, HOST, b"Content-Length:")),
        (400, (POST, HOST, b"Content-Length: +2")),
        (400, (POST, HOST, b"Content-Length: -2")),
        (400, (POST, HOST, b"Content-Length: 0x2")),
        (400, (POST, HOST, b"Content-Length: 9223372036854775808")),
        (400, (POST, HOST, b"Content-Length: " + b"9" * 100_000)),
        (405, (b"FOO / HTTP/1.1", HOST)),
        (405, (b"get / HTTP/1.1", HOST)),
        (405, (b"CONNECT localhost:1 HTTP/1.1", HOST)),
    ],
)
def test_what_go_would_not_serve_is_refused_in_words_of_our_own(
    status: int, lines: tuple[bytes, ...]
) -> None:
    with pytest.raises(RefusedRequestError) as caught:
        head(*lines)

    assert caught.value.status == status
    assert "KEY" not in caught.value.message


def test_another_minor_version_is_read_as_1_1() -> None:
    assert start(b"GET / HTTP/1.7") == GET


def test_a_byte_beyond_ascii_is_written_as_go_reads_it() -> None:
    assert start("GET /é?q=ä HTTP/1.1".encode()) == b"GET /%C3%A9?q=%C3%A4 HTTP/1.1"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://evil.example/api/tags?a", b"/api/tags?a"),
        (b"HTTPS://evil.example", b"/"),
        (b"http://evil.example?a", b"/?a"),
    ],
)
def test_the_host_of_an_absolute_target_is_the_one_that_is_meant(
    target: bytes, path: bytes
) -> None:
    raw = head(b"GET " + target + b" HTTP/1.1", HOST).raw

    assert raw == b"GET %b HTTP/1.1\r\nHost: evil.example\r\n\r\n" % path


@pytest.mark.parametrize(
    "said",
    [b"100-continue", b"100-CONTINUE", b"100-continue, foo", b"foo 100-continue"],
)
def test_an_invitation_is_asked_for_in_one_word(said: bytes) -> None:
    raw = head(POST, HOST, b"Expect: " + said, b"Expect: foo").raw

    assert raw.lower().count(b"expect") == 1
    assert b"\r\nExpect: 100-continue\r\n" in raw


def test_an_upgrade_that_nobody_answers_is_not_asked_for() -> None:
    raw = head(GET, HOST, b"Connection: Upgrade", b"Upgrade: h2c", b"X-A: 1").raw

    assert raw == b"\r\n".join([GET, HOST, b"Connection: Upgrade", b"X-A: 1", b"", b""])


TUNNEL = b"GET /nodes/tunnel HTTP/1.1"
WEB_SOCKET = (b"Connection: Upgrade", b"Upgrade:  WebSocket ")


def test_a_tunnel_asks_for_its_web_socket() -> None:
    found = head(TUNNEL, HOST, *WEB_SOCKET)

    assert found.is_upgrade
    assert found.raw.endswith(b"\r\nUpgrade: websocket\r\n\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        (GET, HOST, *WEB_SOCKET),
        (TUNNEL.replace(b"GET", b"POST"), HOST, *WEB_SOCKET),
        (TUNNEL.replace(b"1.1", b"1.0"), HOST, *WEB_SOCKET),
        (TUNNEL.replace(b"tunnel", b"tunnel?a=b"), HOST, *WEB_SOCKET),
        (TUNNEL, HOST, *WEB_SOCKET, b"Content-Length: 2"),
        (TUNNEL, HOST, *WEB_SOCKET, b"Transfer-Encoding: chunked"),
        (TUNNEL, HOST, *WEB_SOCKET, b"Connection: close"),
        (TUNNEL, HOST, *WEB_SOCKET, b"Upgrade: h2c"),
        (TUNNEL, HOST, b"Connection: Upgrade", b"Upgrade: websocket, h2c"),
    ],
)
def test_whatever_else_asks_for_an_upgrade_gets_none(lines: tuple[bytes, ...]) -> None:
    found = head(*lines)

    assert not found.is_upgrade
    assert b"upgrade:" not in found.raw.lower()


@pytest.mark.parametrize("space", [b" ", b"\t", b" \t"])
@pytest.mark.parametrize(
    "line", [b"Transfer-Encoding: chunked", b"Content-Length: 2", b"Connection: close"]
)
def test_a_space_behind_what_frames_a_request_is_not_handed_on(
    line: bytes, space: bytes
) -> None:
    assert b"\r\n" + line + b"\r\n" in head(POST, HOST, line + space).raw


@pytest.mark.parametrize(
    ("is_last", "lines"),
    [
        (False, (GET, HOST)),
        (True, (GET, HOST, b"Connection: foo, Close")),
        (True, (GET, HOST, b"Connection: foo", b"Connection: close")),
        (True, (b"GET / HTTP/1.0",)),
        (False, (b"GET / HTTP/1.0", b"Connection: keep-alive")),
    ],
)
def test_the_last_request_of_a_connection_is_known(
    *, is_last: bool, lines: tuple[bytes, ...]
) -> None:
    assert head(*lines).is_last == is_last


@pytest.mark.parametrize(
    ("length", "field"),
    [
        (0, b"X-A: 1"),
        (7, b"Content-Length: 007"),
        (None, b"Transfer-Encoding: Chunked"),
    ],
)
def test_how_a_body_is_framed_is_told(length: int | None, field: bytes) -> None:
    assert head(POST, HOST, field).length == length


@pytest.mark.parametrize("method", sorted(_METHODS))
def test_each_method_that_passes_is_one_that_the_parser_behind_knows(
    method: bytes,
) -> None:
    parser = httptools.HttpRequestParser(object())
    parser.feed_data(head(method + b" / HTTP/1.1", HOST).raw)

    assert parser.get_method() == method


def test_what_speaks_tls_is_known_from_its_first_byte() -> None:
    assert not is_beginning(b"\x16\x03\x01")
    assert is_beginning(b"GE")
    assert is_beginning(b"\r")


def test_a_host_may_be_a_name_an_address_or_nothing() -> None:
    assert all(map(is_host, (b"", b"localhost:11434", b"[::1]:80", b"a_b.example")))
    assert not any(map(is_host, (b"a b", b"a/b", b"a@b", b"\xc3\xa9")))
