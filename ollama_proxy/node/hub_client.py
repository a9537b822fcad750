"""Send beats to a hub, in the shape that it accepts."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec

from ollama_proxy.node.beat import Facts, former_beat, whole_beat
from ollama_proxy.node.hub_answer import HubAnswer, on_one_line, read_answer

_LONGEST_ANSWER = 512 * 1024
_CONFLICT = 409
_HEADERS = {"Content-Type": "application/json"}
_STRICT = frozenset({400, 422})
_TRY_ALL_EVERY = 20


class HubAwayError(Exception):
    """Reports a hub that could not be reached, was too slow, or failed itself."""


class HubRefusedError(Exception):
    """Reports a hub that does not want this node's beats; the message quotes it."""


@contextlib.asynccontextmanager
async def calling_hub(limit_s: float) -> AsyncIterator[None]:
    """Give a call to the hub some seconds. Raises `HubAwayError` for what fails."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as error:
        raise HubAwayError(f"no answer within {limit_s:g} s") from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise HubAwayError(
            "the server there has no certificate of the hub that this node joined"
            f" ({error.certificate_error}); if it is the hub, and lost its state, join"
            " again with a new node token"
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise HubAwayError(f"no connection: {error.os_error}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise HubAwayError(str(error) or type(error).__name__) from error


class HubClient:
    """Sends beats. A hub that refuses our key gets the former keys only.

    Every twentieth beat tries all keys again: the hub may be a newer one by then.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, *, limit_s: float
    ) -> None:
        self._session, self._url = session, url
        self._limit_s = limit_s
        self._former_left = 0

    async def tell(self, facts: Facts) -> HubAnswer:
        """Send a beat; return what the hub answers.

        Raises `HubAwayError` or `HubRefusedError`.
        """
        async with calling_hub(self._limit_s):
            return await self._tell(facts)

    async def _tell(self, facts: Facts) -> HubAnswer:
        left = self._former_left
        if left == 0:
            status, text = await self._post(whole_beat(facts))
            if status not in _STRICT:
                return _judged(status, text)
            left = _TRY_ALL_EVERY
        status, text = await self._post(former_beat(facts))
        answer = _judged(status, text)
        self._former_left = left - 1
        return answer

    async def _post(self, beat: dict[str, Any]) -> tuple[int, str]:
        """Send one body; return status and answer, of which 512 KiB are read."""
        data = msgspec.json.encode(beat)
        async with self._session.post(
            self._url, data=data, headers=_HEADERS, allow_redirects=False
        ) as answer:
            read = bytearray()
            async for piece in answer.content.iter_any():
                read += piece[: _LONGEST_ANSWER - len(read)]
                if len(read) == _LONGEST_ANSWER:
                    break
            return answer.status, read.decode(errors="replace")


def _judged(status: int, text: str) -> HubAnswer:
    if 200 <= status < 300:  # noqa: PLR2004 - OK
        return read_answer(text)
    words = f"it answered {status}: {quoted(text)}"
    if status >= 500:  # noqa: PLR2004 - the server's own faults
        raise HubAwayError(words)
    if status == _CONFLICT:
        words = f"another machine has this name; {words}"
    raise HubRefusedError(words)


def quoted(text: str) -> str:
    """Return the sentence of an error body, FastAPI's or ours, on one line."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        text = str(body.get("detail") or body.get("error") or text)
    return on_one_line(text) or "nothing"
