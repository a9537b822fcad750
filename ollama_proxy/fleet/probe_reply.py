"""Read within bounds what an instance answers to the proxy's own questions."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
import msgspec

from ollama_proxy.core.http.compression import (
    Unpacker,
    UnreadableBodyError,
    encoding_of,
)
from ollama_proxy.core.lifecycle.record import Fault
from ollama_proxy.core.ollama.listed_models import ListedModel, Tags
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.upstream.endpoint import is_gateway_response

_MAX_BODY = 16 * 1024 * 1024
_MAX_LINE = 1024 * 1024


class PreparationError(Exception):
    """Reports that the instance can't be made ready; ``fault`` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault

    @property
    def is_cut(self) -> bool:
        """Tell whether the connection broke, which a gateway may have done."""
        return self.fault.reason == "lost"


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """Holds a whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def error(self) -> str:
        """Return the error text of a native answer, or its beginning."""
        return text_field(self.body, "error") or f"status {self.status}"


async def read_reply(
    response: aiohttp.ClientResponse, upstream: Upstream, path: str
) -> ProbeReply:
    """Return a response; raise an error if it is not the instance's own."""
    check_own(response, upstream)
    headers = response.headers
    try:
        return ProbeReply(response.status, headers, await _read(response, path))
    except PreparationError:
        if response.status == 200:  # noqa: PLR2004
            raise
        return ProbeReply(response.status, headers, b"")


def check_own(response: aiohttp.ClientResponse, upstream: Upstream) -> None:
    """Raise `aiohttp.ClientPayloadError` for an answer of the gateway's own."""
    if is_gateway_response(upstream.link, response.headers):
        said = f"the gateway before the instance answered {response.status}"
        raise aiohttp.ClientPayloadError(said)


async def _unpacked(
    response: aiohttp.ClientResponse, path: str
) -> AsyncIterator[bytes]:
    """Yield a body in the clear; raises `PreparationError` if that can't be done."""
    encoding = encoding_of(response.headers)
    if not encoding:
        async for data in response.content.iter_any():
            yield data
        return
    try:
        unpacker = Unpacker(encoding)
        async for data in response.content.iter_any():
            for piece in unpacker.feed(data):
                yield piece
        unpacker.end()
    except UnreadableBodyError as error:
        message = f"the instance's answer to {path} can't be read: {error}"
        raise PreparationError(Fault("encoding", message)) from error


async def _read(response: aiohttp.ClientResponse, path: str) -> bytes:
    """Read a whole body of bounded length."""
    body = bytearray()
    async for data in _unpacked(response, path):
        body += data
        if len(body) > _MAX_BODY:
            raise aiohttp.ClientPayloadError(f"an answer is over {_MAX_BODY} bytes")
    return bytes(body)


def listed_models(body: bytes) -> list[ListedModel]:
    """Return the models of ``/api/tags``."""
    try:
        return msgspec.json.decode(body, type=Tags).models
    except UNREADABLE as error:
        message = f"the instance's list of models can't be read: {error}"
        raise PreparationError(Fault("probe", message)) from error


async def read_lines(
    response: aiohttp.ClientResponse, path: str
) -> AsyncIterator[bytes]:
    """Split a stream into lines of bounded length."""
    rest = b""
    async for data in _unpacked(response, path):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > _MAX_LINE:
            raise aiohttp.ClientPayloadError("a line of progress is over 1 MB")
    if rest.strip():
        yield rest


def text_field(body: bytes, name: str) -> str | None:
    """Return a text of a JSON object; None if it has none of that name."""
    try:
        fields = msgspec.json.decode(body)
    except UNREADABLE:
        return None
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, str) else None
