"""Parse the head of a request as Go's server does, or more strictly.

No socket, no clock. A head that aiohttp's parser would reject, or read differently from
Go's, is refused here or rewritten so that there is one way to read it.
"""

import re
from dataclasses import dataclass

from ollama_proxy.core.nodes.hub_routes import TUNNEL

MAX_HEAD = 1024 * 1024
"""Longest head in bytes, as in Go's server."""

MAX_TARGET = 16 * 1024
"""Longest path and query in bytes: Go allows 1 MB, but yarl caches the last 128 of
them."""

MAX_FIELDS = 10_000

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_HOST = re.compile(rb"[0-9A-Za-z!$%&'()*+,\-.:;=\[\]_~]*")  # as Go's httpguts
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,19}")
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
_MAX_LENGTH = 2**63 - 1

_METHODS = frozenset(
    b"DELETE GET HEAD OPTIONS PATCH POST PUT TRACE ACL BIND CHECKOUT COPY LINK LOCK"
    b" M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY PROPFIND PROPPATCH PURGE"
    b" REBIND REPORT SEARCH SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)
"""The methods that aiohttp's parser knows, without ``CONNECT``."""

SINGLE = frozenset(
    {
        b"content-length",
        b"content-location",
        b"content-range",
        b"content-type",
        b"etag",
        b"host",
        b"max-forwards",
        b"server",
        b"user-agent",
    }
)
"""Headers that aiohttp's parser accepts once only, in lower case."""

_FRAMING = frozenset({b"content-length", b"expect", b"host", b"transfer-encoding"})
"""Headers that are rewritten: parsers differ on a space behind their value."""

_DROPPED = frozenset({b"sec-websocket-key1", b"upgrade"})
"""Headers that stop aiohttp's parser."""

_NOT_KEPT = _FRAMING | _DROPPED
_WEB_SOCKETS = frozenset({TUNNEL.encode()})
"""Paths of which an upgrade is asked for; nothing else here would answer one."""

_LISTED = frozenset({b"connection", b"expect", b"transfer-encoding"})

Field = tuple[bytes, bytes, bytes]
"""A header: its name in lower case, its value, and the unchanged line."""

Found = dict[bytes, list[bytes]]
"""The values of headers, by their names in lower case."""


class RefusedRequestError(Exception):
    """Reports a request that is refused; no byte of the client's is quoted.

    ``path``: the path of a request with an unknown method.
    """

    def __init__(self, status: int, message: str, path: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.path = path


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Holds a head that can be read in one way only.

    ``raw``: its bytes, as aiohttp's server gets them. ``length``: of the body; None if
    it is chunked. ``is_last``: no request follows on the connection. ``is_upgrade``: it
    asks for a WebSocket, where there is one.
    """

    raw: bytes
    length: int | None
    is_last: bool
    is_upgrade: bool = False


def is_host(value: bytes) -> bool:
    """Tell whether a ``Host`` is valid; Go refuses others on every address."""
    return _HOST.fullmatch(value) is not None


def is_beginning(data: bytes | bytearray) -> bool:
    """Tell whether a request may begin so: what speaks TLS need not be waited for."""
    return data[:1] == b"\r" or _TOKEN.match(data[:1]) is not None


def read_head(lines: list[bytes]) -> RequestHead:
    """Return what the lines of a head say; raises `RefusedRequestError`."""
    method, target, is_old = _start(lines[0])
    if len(lines) > MAX_FIELDS:
        raise RefusedRequestError(431, f"the request has over {MAX_FIELDS} headers")
    fields = [read_field(line) for line in lines[1:]]
    found = _watched(fields)
    host = _host(found, is_old=is_old)
    length = _body_length(found, is_old=is_old)
    framing = _expect(found)
    target, host = _origin_form(method, target, host)
    if method not in _METHODS:
        path = target.partition(b"?")[0].decode("latin-1")
        raise RefusedRequestError(405, "405 method not allowed", path)
    version = b"HTTP/1.0" if is_old else b"HTTP/1.1"
    kept = [line for name, _, line in fields if name not in _NOT_KEPT]
    if host is not None:
        kept.insert(0, b"Host: " + host)
    if length is None:
        framing.append(b"Transfer-Encoding: chunked")
    elif b"content-length" in found:
        framing.append(b"Content-Length: %d" % length)
    is_last = _is_last(found, is_old=is_old)
    is_upgrade = (method, length, is_last, is_old) == (b"GET", 0, False, False) and (
        target in _WEB_SOCKETS and _wants_web_socket(fields)
    )
    if is_last:
        framing.append(b"Connection: close")
    elif is_upgrade:
        framing.append(b"Upgrade: websocket")
    start = b"%b %b %b" % (method, target, version)
    raw = b"\r\n".join([start, *kept, *framing, b"", b""])
    return RequestHead(raw, length, is_last, is_upgrade)


def _wants_web_socket(fields: list[Field]) -> bool:
    """Tell whether a request asks for a WebSocket, and for nothing else."""
    return [value.lower() for name, value, _ in fields if name == b"upgrade"] == [
        b"websocket"
    ]


def _start(line: bytes) -> tuple[bytes, bytes, bool]:
    """Return method, target, and whether it is HTTP/1.0; later 1.x are as 1.1."""
    parts = line.split(b" ")
    version = _VERSION.fullmatch(parts[-1])
    if len(parts) != 3 or version is None:  # noqa: PLR2004 - method, target, version
        raise RefusedRequestError(400, "this is not a request of HTTP/1.1")
    if version[1] != b"1":
        raise RefusedRequestError(505, "this server speaks HTTP/1.1 only")
    method, target, _ = parts
    if len(target) > MAX_TARGET:
        raise RefusedRequestError(
            414, f"the path and query have over {MAX_TARGET} bytes"
        )
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        raise RefusedRequestError(
            400, "the request line has a character that may not be there"
        )
    if not target.isascii():
        target = _BEYOND_ASCII.sub(lambda found: b"%%%02X" % found[0][0], target)
    return method, target, version[2] == b"0"


def read_field(line: bytes) -> Field:
    """Return a header, or a trailer; raises `RefusedRequestError`."""
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        raise RefusedRequestError(400, "the request has a line that is no header")
    if not _VALUE.fullmatch(value):
        raise RefusedRequestError(
            400, "a header of the request has a control character in it"
        )
    return name.lower(), value.strip(b" \t"), line


def _watched(fields: list[Field]) -> Found:
    """Return the values of the headers that matter here; some may be there once."""
    found: Found = {}
    for name, value, _ in fields:
        if name in SINGLE:
            if name in found:
                raise RefusedRequestError(
                    400, "the request has a header twice that may be there once"
                )
            found[name] = [value]
        elif name in _LISTED:
            found.setdefault(name, []).append(value)
    return found


def _host(found: Found, *, is_old: bool) -> bytes | None:
    """Return the ``Host``, which HTTP/1.0 may omit."""
    hosts = found.get(b"host", ())
    if not hosts and not is_old:
        raise RefusedRequestError(400, "the request has no Host header")
    if hosts and not is_host(hosts[0]):
        raise RefusedRequestError(400, "the request has a malformed Host header")
    return hosts[0] if hosts else None


def _body_length(found: Found, *, is_old: bool) -> int | None:
    """Return the length of the body; None if it comes in chunks (RFC 9112 §6)."""
    codings = found.get(b"transfer-encoding", ())
    lengths = found.get(b"content-length", ())
    if codings and is_old:
        raise RefusedRequestError(400, "HTTP/1.0 has no Transfer-Encoding")
    if codings and [coding.lower() for coding in codings] != [b"chunked"]:
        raise RefusedRequestError(
            501, "unsupported transfer encoding: this server takes 'chunked' alone"
        )
    if codings and lengths:
        raise RefusedRequestError(
            400, "the request has both a Content-Length and a Transfer-Encoding"
        )
    if codings:
        return None
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise RefusedRequestError(400, "the Content-Length is no length")
    length = int(lengths[0]) if lengths else 0
    if length > _MAX_LENGTH:
        raise RefusedRequestError(400, "the Content-Length is no length")
    return length


def _expect(found: Found) -> list[bytes]:
    """Return the ``Expect`` line by which a client waits to be invited, or no line."""
    if b"expect" not in found:
        return []
    first = found[b"expect"][0].lower()
    if b"100-continue" in re.split(rb"[\s,]+", first):
        return [b"Expect: 100-continue"]
    if first:
        raise RefusedRequestError(417, "")
    return []


def _origin_form(
    method: bytes, target: bytes, host: bytes | None
) -> tuple[bytes, bytes | None]:
    """Return the path and query that are asked for, and the ``Host`` that is meant."""
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target, host
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None and absolute[1] and is_host(absolute[1]):
        rest = absolute[2]
        return (rest if rest.startswith(b"/") else b"/" + rest), absolute[1]
    if method == b"CONNECT" and is_host(target):
        return target, host
    raise RefusedRequestError(400, "what is asked for is no path")


def _is_last(found: Found, *, is_old: bool) -> bool:
    if b"connection" not in found:
        return is_old
    said = b",".join(found[b"connection"]).lower().split(b",")
    tokens = {token.strip(b" \t") for token in said}
    return b"close" in tokens or (is_old and b"keep-alive" not in tokens)
