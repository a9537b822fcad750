"""Read the body of ``POST /execute``: whole, bounded, and valid."""

from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

LARGEST_BODY = 32 << 20
_MOST_HELD = 256 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """Holds a request for a generation: the model, and the body as it was received.

    ``streams``: its answer comes word by word.
    """

    model: str
    body: bytes
    streams: bool = True


class BodyError(Exception):
    """Reports a body that can't be executed, with the status and the sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BodyReader:
    """Reads bodies, all of them together at most 256 MiB at a time."""

    def __init__(
        self, largest: int = LARGEST_BODY, most_held: int = _MOST_HELD
    ) -> None:
        self._largest, self._most_held = largest, most_held
        self._held = 0

    async def read(self, request: web.Request) -> bytes:
        """Return the body; `release` it later. Raises `BodyError`."""
        body = bytearray()
        try:
            async for chunk in request.content.iter_any():
                body += chunk
                self._held += len(chunk)
                self._check(len(body))
        except BaseException:
            self._held -= len(body)
            raise
        return bytes(body)

    def release(self, body: bytes) -> None:
        """Count a body no more."""
        self._held -= len(body)

    def _check(self, length: int) -> None:
        if length > self._largest:
            most = f"{self._largest >> 20} MiB"
            raise BodyError(413, f"the body is longer than {most}; send a shorter one")
        if self._held > self._most_held:
            message = "this agent holds too many long requests; ask again in a second"
            raise BodyError(503, message)


def parse_job(body: bytes) -> Job:
    """Return what a body asks for. Raises `BodyError` for one that is no job.

    Keys besides the former ones pass, as Ollama has more of them.
    """
    try:
        read: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BodyError(400, f"the body is not JSON ({error})") from error
    if not isinstance(read, dict):
        raise BodyError(400, 'the body is no object; send {"model": …, "prompt": …}')
    for key, kind, words in (
        ("model", str, "a text"),
        ("prompt", str, "a text"),
        ("options", dict, "an object"),
        ("stream", bool, "true or false"),
    ):
        if read.get(key) is not None and not isinstance(read[key], kind):
            raise BodyError(400, f"{key!r} is not {words}")
    if not read.get("model"):
        raise BodyError(400, "'model' is missing; name one of this node's models")
    return Job(read["model"], body, read.get("stream") is not False)
