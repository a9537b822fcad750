"""Encode answers to plain requests, as bytes."""

import functools
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from multidict import CIMultiDict

from ollama_proxy.core.http import headers
from ollama_proxy.core.http.chunks import framed
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.error_bodies import ProvisioningStatus
from ollama_proxy.core.ollama.routes import Family
from ollama_proxy.server.fast.connection import ClientConnection
from ollama_proxy.serving.client_writer import Head
from ollama_proxy.serving.cold_answers import provisioning_reply

_LONGEST_REMEMBERED = 1024
"""Characters of headers that are remembered; some repeat what a client sent."""

_BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class ClientResponse:
    """Writes a response whose head was sent."""

    def __init__(
        self, client: ClientConnection, status: int, fields: CIMultiDict[str]
    ) -> None:
        self.status = status
        self.headers = fields
        self._client = client
        self._is_chunked = "Transfer-Encoding" in fields

    async def write(self, data: bytes) -> None:
        """Send more of its body; raises `ConnectionResetError` without a client."""
        self._client.send(framed(data) if self._is_chunked else data)

    async def write_eof(self) -> None:
        """End its body; raises `ConnectionResetError` without a client."""
        if self._is_chunked:
            self._client.send(b"0\r\n\r\n")


async def begin(
    client: ClientConnection,
    date: float,
    head: Head,
    added: Mapping[str, str],
    body: bytes,
) -> ClientResponse:
    """Begin the answer to a plain request: a `StartResponse`, for a client and date."""
    fields = headers.for_client(head.headers)
    fields.popall("Server", None)
    if head.status in _BODILESS:
        fields.popall("Content-Length", None)  # RFC 9110 §8.6
    elif body:
        fields["Content-Length"] = str(len(body))
    elif "Content-Length" not in fields:
        fields["Transfer-Encoding"] = "chunked"
    if "Date" not in fields:
        fields["Date"] = _date(int(date))
    if head.headers.get("Connection", "").lower() == "keep-alive":
        fields["Connection"] = "keep-alive"  # Ollama sends it on some routes
    fields.update(added)
    client.send(_head(head.status, head.reason, tuple(fields.items())) + body)
    return ClientResponse(client, head.status, fields)


@functools.lru_cache(maxsize=128)  # while an instance starts, clients retry often
def encode_provisioning_reply(
    family: Family, waiting: ProvisioningStatus, request_id: str, date: int
) -> bytes:
    """Return the 503 while no instance is ready; some protocols have an id."""
    return encoded(provisioning_reply(family, waiting, request_id), "POST", date)


def encoded(reply: Reply, method: str, date: float) -> bytes:
    """Return a reply of our own as aiohttp would send it."""
    length, now = str(len(reply.body)), _date(int(date))
    fields = (*reply.headers, ("Content-Length", length), ("Date", now))
    reason = HTTPStatus(reply.status).phrase
    head = _own_head(reply.status, reason, fields)
    return head if method == "HEAD" else head + reply.body


def _head(
    status: int, reason: str | None, fields: tuple[tuple[str, str], ...]
) -> bytes:
    """Return status line and headers.

    Raises `ValueError` for a line break in a value, which would begin a new header.
    """
    lines = [f"{name}: {value}\r\n" for name, value in fields]
    text = f"HTTP/1.1 {status} {reason or ''}\r\n{''.join(lines)}\r\n"
    breaks = len(lines) + 2
    if text.count("\r") != breaks or text.count("\n") != breaks:
        raise ValueError("a header of the answer contains a line break")
    return text.encode("utf-8", "surrogateescape")


def _own_head(
    status: int, reason: str | None, fields: tuple[tuple[str, str], ...]
) -> bytes:
    """Return a head of our own; a short one is remembered, being one of few."""
    if sum(len(value) for _, value in fields) > _LONGEST_REMEMBERED:
        return _head(status, reason, fields)
    return _remembered(status, reason, fields)


_remembered = functools.lru_cache(maxsize=256)(_head)


@functools.lru_cache(maxsize=2)
def _date(now_s: int) -> str:
    """Return a time as HTTP writes it (RFC 9110 §5.6.7)."""
    return formatdate(now_s, usegmt=True)
