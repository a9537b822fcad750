"""A client's request as an instance gets it: headers, framing, bytes."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from ollama_proxy import headers
from ollama_proxy.exchange import raw_target

_BREAKS_LINES = re.compile(r"[\r\n\0]")
_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})


class Body(Protocol):
    """A request's body on its way to an instance.

    ``complete``: it is all there, so it can be sent twice. ``expects``: its client
    sends it only once it is invited.
    """

    complete: bool
    on_invited: Callable[[], None] | None

    @property
    def expects(self) -> bool:
        """Whether its client waits to be invited."""

    async def invite(self) -> None:
        """Have the client send it."""

    def payload(self) -> bytes | AsyncIterator[bytes] | None:
        """Return what is to be sent, framed as it came."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as an instance gets it; ``target`` is the raw path and query."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: Body


def outgoing(request: web.BaseRequest, body: Body) -> Outgoing:
    """Return a client's request as an instance gets it."""
    target, to_send = raw_target(request), headers.for_upstream(request.headers)
    return Outgoing(request.method, target, to_send, body)


def is_chunked(request: Outgoing, payload: bytes | AsyncIterator[bytes] | None) -> bool:
    """Tell whether a body goes out in chunks, since nobody knows its length."""
    in_parts = payload is not None and not isinstance(payload, bytes)
    return in_parts and "Content-Length" not in request.headers


def head_of(
    request: Outgoing,
    payload: bytes | AsyncIterator[bytes] | None,
    base_url: str,
    *,
    added: Mapping[str, str],
    expect100: bool,
) -> bytes:
    """Return request line and headers.

    ``added`` headers replace the client's own; ``expect100``: see RFC 9110 §10.1.1.
    Raises `ValueError` if a line break would let one header become two.
    """
    url = URL(base_url)
    prefix = url.raw_path.rstrip("/")
    fields = [("Host", url.host_port_subcomponent or "")]
    if added:
        replaced = {name.lower() for name in added}
        passed_on = request.headers.items()
        fields += [field for field in passed_on if field[0].lower() not in replaced]
        fields += added.items()
    else:
        fields += request.headers.items()
    if is_chunked(request, payload):
        fields.append(("Transfer-Encoding", "chunked"))
    elif "Content-Length" not in request.headers:
        if isinstance(payload, bytes):
            fields.append(("Content-Length", str(len(payload))))
        elif request.method in _BODY_EXPECTED:
            fields.append(("Content-Length", "0"))
    if expect100:
        fields.append(("Expect", "100-continue"))
    parts = [request.method, prefix, request.target]
    for field in fields:
        parts += field
    if _BREAKS_LINES.search("".join(parts)):
        raise ValueError("a header of the request contains a line break")
    lines = [f"{name}: {value}\r\n" for name, value in fields]
    text = f"{request.method} {prefix}{request.target} HTTP/1.1\r\n{''.join(lines)}\r\n"
    return text.encode("utf-8", "surrogateescape")
