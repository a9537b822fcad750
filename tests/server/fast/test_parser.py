"""Which requests are plain, and what becomes of their bytes."""

import time

import pytest

from ollama_proxy.server.fast.parser import PlainRequest, RequestParser
from ollama_proxy.serving.body_budget import SMALL_BODY

HEAD = b"POST /api/chat?x=%20 HTTP/1.1\r\nHost: localhost:11434\r\n"
POST = HEAD + b"Content-Length: 2\r\n\r\n{}"


def read(*parts: bytes) -> PlainRequest | None:
    """Return the request that comes in ``parts``, if it is plain and whole."""
    parser = RequestParser()
    for part in parts:
        parser.feed(part)
    return parser.take() if parser.is_plain else None


def sent(request: PlainRequest | None, **added: str) -> bytes:
    """Return what an instance gets of a request."""
    assert request is not None
    head = request.head(None, "http://10.0.0.1:8080/base", added=added, expect100=False)
    payload = request.body.payload()
    return head + (payload if isinstance(payload, bytes) else b"")


def test_a_plain_request_is_read_whole() -> None:
    request = read(POST)

    assert request is not None
    assert (request.method, request.target) == ("POST", "/api/chat?x=%20")
    assert (request.path, request.host) == ("/api/chat", "localhost:11434")
    assert request.body.head == b"{}"


def test_a_body_may_come_later() -> None:
    parser = RequestParser()
    parser.feed(POST[:-1])

    assert parser.is_plain
    assert parser.has_head
    assert parser.take() is None

    parser.feed(POST[-1:])
    request = parser.take()
    assert request is not None
    assert request.body.head == b"{}"


def test_one_request_follows_another() -> None:
    parser = RequestParser()
    parser.feed(POST)
    parser.take()
    parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\n\r\n")
    request = parser.take()

    assert parser.is_plain
    assert request is not None
    assert (request.method, request.agent, request.body.head) == ("GET", "me", b"")


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nOrigin: http://localhost\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nPrefer: wait=9\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nX-Ollama-Proxy-Pool: big\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nX-Ollama-Proxy-Retry: always\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nConnection: keep-alive, X-A\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nHost: other\r\n\r\n{}",
        HEAD + b"\r\n",
        HEAD + b"Content-Length: %d\r\n\r\n" % (SMALL_BODY + 1),
        POST.replace(b"1.1", b"1.0"),
        POST.replace(b"/api/chat", b"http://localhost/api/chat"),
        POST.replace(b"POST", b"PUT"),
        POST.replace(b"Host: localhost:11434\r\n", b""),
        POST + POST,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_asks_for_more_is_not_plain(raw: bytes) -> None:
    parser = RequestParser()
    parser.feed(raw)

    assert not parser.is_plain


def test_a_head_that_is_not_whole_is_nothing_yet() -> None:
    parser = RequestParser()
    parser.feed(HEAD)

    assert not parser.has_head


def test_an_instance_gets_the_headers_as_they_came() -> None:
    raw = (
        b"POST /api/chat HTTP/1.1\r\nhOsT: localhost\r\nConnection: Keep-Alive\r\n"
        b"X-Twice: a\r\nTE: trailers\r\nx-twice:  \xff \r\ncontent-length: 2 \r\n\r\n{}"
    )

    assert sent(read(raw)) == (
        b"POST /base/api/chat HTTP/1.1\r\nHost: 10.0.0.1:8080\r\n"
        b"X-Twice: a\r\nx-twice: \xff\r\ncontent-length: 2\r\n\r\n{}"
    )


@pytest.mark.parametrize("agent", [b"curl/8.5", b"\xc3\xa9t\xc3\xa9", b"\xff"])
def test_a_user_agent_is_found_as_any_header_is(agent: bytes) -> None:
    request = read(HEAD + b"User-Agent: " + agent + b"\r\nContent-Length: 0\r\n\r\n")

    assert request is not None
    assert request.get("User-Agent", "") == agent.decode("latin-1")
    assert request.get("User-Agent", "") == request.get("user-agent", "")


def test_an_instance_gets_our_credentials_and_not_the_clients() -> None:
    raw = POST.replace(b"\r\n\r\n", b"\r\nAUTHORIZATION: Bearer theirs\r\n\r\n")

    got = sent(read(raw), Authorization="Bearer ours")

    assert b"Bearer ours\r\n" in got
    assert b"theirs" not in got


def test_a_request_without_a_body_has_none_at_the_instance() -> None:
    request = read(b"GET /api/tags HTTP/1.1\r\nHost: a\r\n\r\n")

    assert request is not None
    assert request.body.payload() is None


def test_nothing_of_a_request_is_kept_when_it_is_taken() -> None:
    parser = RequestParser()
    parser.feed(POST.replace(b"{}", b"ab"))
    assert "b'ab'" in repr(vars(parser))

    assert parser.take() is not None
    assert "b'ab'" not in repr(vars(parser))


def test_a_closed_parser_takes_no_more() -> None:
    parser = RequestParser()
    parser.close()
    parser.feed(POST)

    assert parser.take() is None


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", [b"User-Agent", b"X-Ollama-Proxy-Via"])
def test_a_header_that_comes_often_costs_no_more_each_time(name: bytes) -> None:
    parser, head = RequestParser(), b"GET / HTTP/1.1\r\nHost: a\r\n"
    begun_at = time.process_time()
    parser.feed(head + b"h: x\r\n" * 20_000 + (name + b": x\r\n") * 20_000)

    assert time.process_time() - begun_at < 1.0
