"""Read a client's requests, as far as they are plain.

No socket, no clock. The body of a plain request, if any, is small and has a
Content-Length, and its headers change nothing on the connection but keep-alive: no
upgrade, no ``Expect``, no ``Origin`` to check. Any other request is left to aiohttp,
which handles all of HTTP. httptools (llhttp, Node's parser) is strict: a request that
it rejects is not plain either.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass

import httptools

from ollama_proxy.core.access.facts import SentField
from ollama_proxy.core.http.headers import NOT_FOR_UPSTREAM, POOL_HEADER, RETRY_HEADER
from ollama_proxy.core.http.request_head import MAX_TARGET, SINGLE, is_host
from ollama_proxy.gateway.credentials import SENT_IN, passes_on
from ollama_proxy.serving.body_budget import SMALL_BODY
from ollama_proxy.upstream.loop_mark import VIA
from ollama_proxy.upstream.request import BODY_EXPECTED, base_of

_METHODS = frozenset({"GET", "HEAD", "POST"})
_ASKS_FOR_MORE = frozenset(
    {
        b"content-encoding",
        b"expect",
        b"origin",
        b"prefer",
        b"transfer-encoding",
        b"upgrade",
        POOL_HEADER.lower().encode(),
        RETRY_HEADER.lower().encode(),
    }
)
_VIA = VIA.lower().encode()
_MAY_HOLD_KEY = frozenset(name.encode() for name in SENT_IN)
_LOOKED_AT = (
    frozenset(name.encode() for name in NOT_FOR_UPSTREAM)
    | _ASKS_FOR_MORE
    | SINGLE
    | _MAY_HOLD_KEY
    | {_VIA}
)
_SINGLE = SINGLE - {b"host"}


class BufferedBody:
    """Holds a complete body, which can be sent repeatedly."""

    __slots__ = ("_is_sent", "head", "on_invited")

    complete = True
    expects = False
    encoding = ""

    def __init__(self, body: bytes, *, is_sent: bool) -> None:
        self.head = body
        self.on_invited: Callable[[], None] | None = None
        self._is_sent = is_sent

    async def invite(self) -> None:
        """Do nothing: it is here."""

    def payload(self) -> bytes | AsyncIterator[bytes] | None:
        """Return it; None if the request has none."""
        return self.head if self._is_sent else None


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """Holds a plain request, completely received.

    ``target``: raw path and query. ``agent``: the User-Agent. ``fields``: the headers
    for the instance, as received, without ``Host``. ``marks``: marks of the proxies
    that it has passed. ``sent``: the headers that may hold a key; ``sent_at``: where
    these stand in ``fields``.
    """

    method: str
    target: str
    host: str
    agent: str
    fields: list[tuple[bytes, bytes]]
    body: BufferedBody
    marks: tuple[str, ...] = ()
    sent: tuple[SentField, ...] = ()
    sent_at: tuple[int, ...] = ()

    @property
    def path(self) -> str:
        """Return the raw path, without the query."""
        return self.target.partition("?")[0]

    def get(self, name: str, default: str, /) -> str:
        """Return the first value of a header; found by looking at each."""
        agent = self.agent
        if name == "User-Agent" and agent.isascii() and (agent or not default):
            return agent  # asked of each request without a key
        wanted = name.lower().encode()
        for field, value in self.fields:
            if field.lower() == wanted:
                return value.decode("latin-1")
        return default

    def getall(self, name: str, default: list[str], /) -> list[str]:
        """Return the values of a header in the order of its lines, or ``default``."""
        wanted = name.lower().encode()
        found = [
            value.decode("latin-1")
            for field, value in self.fields
            if field.lower() == wanted
        ]
        return found or default

    def __iter__(self) -> Iterator[str]:
        """Return the names of the headers."""
        return (field.decode("latin-1") for field, _ in self.fields)

    def drop_credentials(self, *, hides: bool) -> None:
        """Keep credentials from the instance: all, or those of ours."""
        if hides and len(self.sent) == 1 and self.sent[0][0] != "cookie":
            del self.fields[self.sent_at[0]]  # as of nearly every client
            return
        for (name, value), at in zip(
            reversed(self.sent), reversed(self.sent_at), strict=True
        ):
            passed = passes_on(name, value, hides=hides)
            if passed is None:
                del self.fields[at]
            elif passed != value:
                self.fields[at] = self.fields[at][0], passed.encode("latin-1")

    def in_chunks(self, payload: bytes | AsyncIterator[bytes] | None) -> bool:
        """Return False: the length is known."""
        del payload
        return False

    def head(
        self,
        payload: bytes | AsyncIterator[bytes] | None,
        base_url: str,
        *,
        added: Mapping[str, str],
        expect100: bool,
    ) -> bytes:
        """Return request line and headers, as `UpstreamRequest` says."""
        del payload, expect100
        host, prefix = base_of(base_url)
        fields = self.fields
        if added:
            names = {name.lower().encode() for name in added}
            fields = [field for field in fields if field[0].lower() not in names]
            fields += [(name.encode(), value.encode()) for name, value in added.items()]
        start = f"{self.method} {prefix}{self.target} HTTP/1.1\r\nHost: {host}\r\n"
        lines = [b"%b: %b\r\n" % field for field in fields]
        return b"%b%b\r\n" % (start.encode(), b"".join(lines))


class RequestParser:
    """Reads the requests of one connection, one at a time.

    After `feed`, ``is_plain`` tells whether the request may still be plain,
    ``has_head`` whether its head is complete. `take` returns the request once it is
    complete.
    """

    def __init__(self) -> None:
        self.is_plain = True
        self._request: PlainRequest | None = None
        self._reset()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(
            self
        )

    def _reset(self) -> None:
        self.has_head = False
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._hosts: list[bytes] = []
        self._agent = b""
        self._singles: set[bytes] = set()
        self._marks: list[str] = []
        self._sent: list[SentField] = []
        self._sent_at: list[int] = []
        self._length: int | None = None
        self._body: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Parse received bytes."""
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_plain = False

    def take(self) -> PlainRequest | None:
        """Return the request if it is whole, and make room for the next."""
        request, self._request = self._request, None
        if request is not None:
            self._reset()  # an idle connection keeps no request in memory
        return request

    def close(self) -> None:
        """Let go: the parser and this object hold each other."""
        self._parser = None

    def on_message_begin(self) -> None:
        """Handle the beginning of a request; a pipelined one is not plain."""
        if self._request is not None:
            self.is_plain = False

    def on_url(self, part: bytes) -> None:
        """Take in a part of the target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header: most are for the instance alone."""
        lowered, value = name.lower(), value.rstrip(b" \t")
        if lowered not in _LOOKED_AT:
            self._fields.append((name, value))
        elif lowered in _SINGLE:
            self._note_single(lowered, name, value)
        elif lowered == b"host":
            self._hosts.append(value)
        elif lowered in _MAY_HOLD_KEY:
            self._sent.append((lowered.decode(), value.decode("latin-1")))
            self._sent_at.append(len(self._fields))
            self._fields.append((name, value))
        elif lowered == _VIA:
            self._marks.append(value.decode("latin-1"))
            self._fields.append((name, value))
        elif lowered in _ASKS_FOR_MORE or not _is_kept(lowered, value):
            self.is_plain = False

    def _note_single(self, lowered: bytes, name: bytes, value: bytes) -> None:
        """Take in a header that may come once; most are for the instance alone."""
        if lowered in self._singles:
            self.is_plain = False
        self._singles.add(lowered)
        self._fields.append((name, value))
        if lowered == b"content-length":
            self._length = int(value)
        elif lowered == b"user-agent":
            self._agent = value

    def on_headers_complete(self) -> None:
        """Judge the request by its head."""
        parser = self._parser
        if parser is None:
            return
        method = parser.get_method().decode()
        has_length = self._length is not None or method not in BODY_EXPECTED
        # Unusual requests go to aiohttp, which parses them again: HTTP/1.0, absolute
        # targets, bodies in chunks or over 256 KiB, and heads that Go would refuse.
        self.is_plain = (
            self.is_plain
            and method in _METHODS
            and parser.get_http_version() == "1.1"
            and self._target.startswith(b"/")
            and len(self._target) <= MAX_TARGET
            and len(self._hosts) == 1
            and is_host(self._hosts[0])
            and has_length
            and (self._length or 0) <= SMALL_BODY
        )
        self._method = method
        self.has_head = True

    def on_body(self, part: bytes) -> None:
        """Take in a part of the body."""
        if self.is_plain:
            self._body.append(part)

    def on_message_complete(self) -> None:
        """Handle the end of a request."""
        if not self.is_plain:
            return
        body = b"".join(self._body)
        self._request = PlainRequest(
            self._method,
            self._target.decode(),
            self._hosts[0].decode("utf-8", "surrogateescape"),
            self._agent.decode("utf-8", "surrogateescape"),
            self._fields,
            BufferedBody(body, is_sent=bool(self._length)),
            tuple(self._marks),
            tuple(self._sent),
            tuple(self._sent_at),
        )


def _is_kept(name: bytes, value: bytes) -> bool:
    """Tell whether a header that ends here leaves the connection as it is."""
    return name != b"connection" or value.strip().lower() == b"keep-alive"
