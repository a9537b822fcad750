"""Ask addresses which of them is a certain node: by a nonce that it alone can answer.

No token is sent with it, so that another server at the address learns nothing.
"""

import asyncio
import hmac
import secrets
from collections.abc import Sequence
from typing import Final, Protocol

import aiohttp
import msgspec

from ollama_proxy.base.listen_address import host_and_port
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.core.nodes.node_keys import NodeKey, nonce_proof, nonce_secret
from ollama_proxy.upstream.endpoint import Link, connection_options

ASK_S: Final = 5.0
"""How long an address has for its answer."""

HEAD_START_S: Final = 0.25
"""How long an address is asked alone before the next one is too: RFC 8305 §5."""

_LONGEST_ANSWER = 4096
_NONCE_BYTES = 24


class _Answer(msgspec.Struct):
    proof: str = ""


class Prove(Protocol):
    """Finds which of some addresses is a node."""

    async def __call__(self, urls: Sequence[str], key: NodeKey, link: Link) -> str:
        """Return the first URL that proved to be the node with a key; "" if none."""


class NodeProver:
    """Asks over a session."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        ask_s: float = ASK_S,
        head_start_s: float = HEAD_START_S,
    ) -> None:
        self._session = session
        self._ask_s, self._head_start_s = ask_s, head_start_s

    async def __call__(self, urls: Sequence[str], key: NodeKey, link: Link) -> str:
        """Ask several at a time, the first ones first; the first proof decides."""
        tasks = TaskOwner()
        asking: dict[asyncio.Task[bool], str] = {}
        left = list(urls)
        try:
            while left or asking:
                if left:
                    url = left.pop(0)
                    name = "node proof"
                    asking[tasks.spawn(self._proves(url, key, link), name=name)] = url
                done, _ = await asyncio.wait(
                    asking,
                    timeout=self._head_start_s if left else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    url = asking.pop(task)
                    if not task.cancelled() and task.result():
                        return url
        finally:
            await tasks.aclose()
        return ""

    async def _proves(self, url: str, key: NodeKey, link: Link) -> bool:
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        try:
            async with (
                asyncio.timeout(self._ask_s),
                self._session.get(
                    f"{url}/healthz",
                    params={"nonce": nonce},
                    allow_redirects=False,  # it would be another server's answer
                    **connection_options(link),
                ) as answer,
            ):
                if answer.status != 200:  # noqa: PLR2004 - OK
                    return False
                body = await answer.content.read(_LONGEST_ANSWER)
                given = msgspec.json.decode(body, type=_Answer).proof
        except (aiohttp.ClientError, OSError, ValueError, RecursionError):
            return False  # `TimeoutError` is an `OSError`
        expected = nonce_proof(nonce_secret(key.digest), nonce)
        return hmac.compare_digest(given.encode(), expected.encode())


def url_of(address: str, port: int, *, is_tls: bool) -> str:
    """Return the URL of a node's server."""
    return f"http{'s' if is_tls else ''}://{host_and_port(address, port)}"
