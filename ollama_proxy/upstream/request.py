"""Write a client's request as an instance gets it: headers, framing, bytes."""

import functools
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from multidict import CIMultiDict
from yarl import URL

from ollama_proxy.core.http.compression import CLEAR

_BREAKS_LINES = re.compile(r"[\r\n\0]")

BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose request has a Content-Length even without a body."""


class Body(Protocol):
    """Provides a request's body on its way to an instance.

    ``complete``: all of it is in memory, so it can be sent twice. ``expects``: the
    client sends it only after ``100 Continue``.
    """

    complete: bool
    on_invited: Callable[[], None] | None

    @property
    def expects(self) -> bool:
        """Tell whether its client waits to be invited."""

    async def invite(self) -> None:
        """Have the client send it."""

    def payload(self) -> bytes | AsyncIterator[bytes] | None:
        """Return the bytes or parts to send, framed as received."""


class UpstreamRequest(Protocol):
    """Describes a request that can be sent to an instance."""

    @property
    def method(self) -> str:
        """Return the method."""

    @property
    def target(self) -> str:
        """Return the raw path and query."""

    @property
    def body(self) -> Body:
        """Return the body."""

    def in_chunks(self, payload: bytes | AsyncIterator[bytes] | None) -> bool:
        """Tell whether a body goes out in chunks, since its length is unknown."""

    def head(
        self,
        payload: bytes | AsyncIterator[bytes] | None,
        base_url: str,
        *,
        added: Mapping[str, str],
        expect100: bool,
    ) -> bytes:
        """Return request line and headers.

        ``added`` headers replace the client's. ``expect100``: see RFC 9110 §10.1.1.
        """


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """Holds a request as an instance gets it; ``target`` is the raw path and query."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: Body

    def in_chunks(self, payload: bytes | AsyncIterator[bytes] | None) -> bool:
        """Tell whether a body goes out in chunks, since its length is unknown."""
        in_parts = payload is not None and not isinstance(payload, bytes)
        return in_parts and "Content-Length" not in self.headers

    def head(
        self,
        payload: bytes | AsyncIterator[bytes] | None,
        base_url: str,
        *,
        added: Mapping[str, str],
        expect100: bool,
    ) -> bytes:
        """Return request line and headers, as `UpstreamRequest` says.

        Raises `ValueError` for a line break in a value, which would begin a new header.
        """
        host, prefix = base_of(base_url)
        fields = [("Host", host), *without(self.headers.items(), added)]
        fields += self._framing(payload)
        if expect100:
            fields.append(("Expect", "100-continue"))
        parts = [self.method, prefix, self.target]
        for field in fields:
            parts += field
        if _BREAKS_LINES.search("".join(parts)):
            raise ValueError("a header of the request contains a line break")
        lines = [f"{name}: {value}\r\n" for name, value in fields]
        start = f"{self.method} {prefix}{self.target} HTTP/1.1\r\n"
        text = f"{start}{''.join(lines)}\r\n"
        return text.encode("utf-8", "surrogateescape")

    def _framing(
        self, payload: bytes | AsyncIterator[bytes] | None
    ) -> list[tuple[str, str]]:
        """Return the header that frames the body, if none does yet."""
        if self.in_chunks(payload):
            return [("Transfer-Encoding", "chunked")]
        if "Content-Length" in self.headers:
            return []
        if isinstance(payload, bytes):
            return [("Content-Length", str(len(payload)))]
        return [("Content-Length", "0")] if self.method in BODY_EXPECTED else []


def in_our_name(path: str, body: Body, agent: str) -> PreparedRequest:
    """Return a POST of JSON with no header of the client's but its program's name.

    For a machine that has proved nothing: some clients send the keys of other services
    with every request.
    """
    fields = CIMultiDict({"Content-Type": "application/json", **CLEAR})
    if agent:
        fields["User-Agent"] = agent
    return PreparedRequest("POST", path, fields, body)


def in_the_clear(to_send: PreparedRequest) -> PreparedRequest:
    """Return a request that asks for an uncompressed answer, to be read or joined."""
    fields = CIMultiDict(without(to_send.headers.items(), CLEAR))
    return replace(to_send, headers=fields)


@functools.lru_cache(maxsize=64)  # called for each request
def base_of(url: str) -> tuple[str, str]:
    """Return an upstream's ``Host``, and the path before all of its paths."""
    parsed = URL(url)
    return parsed.host_port_subcomponent or "", parsed.raw_path.rstrip("/")


def without(
    fields: Iterable[tuple[str, str]], replaced: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return headers less those that are replaced, and the replacements."""
    if not replaced:
        return list(fields)
    names = {name.lower() for name in replaced}
    kept = [field for field in fields if field[0].lower() not in names]
    return [*kept, *replaced.items()]
