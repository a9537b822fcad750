"""Start the agent: join the hub first, if there is a token, and run as a member."""

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import aiohttp

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.retry import GrowingPause
from ollama_proxy.base.server_tls import server_context
from ollama_proxy.base.tasks import scoped_task
from ollama_proxy.node.agent import Signal, run_node
from ollama_proxy.node.identity import keep_node_id
from ollama_proxy.node.joining import Joiner
from ollama_proxy.node.membership import Membership, keyless_session
from ollama_proxy.node.renewal import Renewal
from ollama_proxy.node.settings import NodeSettings

_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 30.0


async def start_node(
    settings: NodeSettings,
    *,
    clock: Clock,
    rng: random.Random,
    next_signal: Signal,
    announce: Callable[[str], None],
) -> None:
    """Join, then report to the hub and work for it until a signal.

    A signal ends it also while it waits for a hub that is away. Raises `StartupError`.
    """
    signals = _Signals(next_signal)
    async with scoped_task(_member(settings, rng), name="joining") as joining:
        async with scoped_task(signals.first(), name="signal") as signalled:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait({joining, signalled}, return_when=first)
        if not joining.done():
            return
        member = joining.result()
    context = _context(settings, member)
    async with _renewing(settings, member, context, rng):
        await run_node(
            settings,
            clock=clock,
            rng=rng,
            next_signal=signals.next,
            announce=announce,
            access=None if member is None else member.access,
            context=context,
            open_session=_opener(member),
        )


class _Signals:
    """Passes signals on: one that arrives while joining ends is not lost."""

    def __init__(self, next_signal: Signal) -> None:
        self._next = next_signal
        self._early = False

    async def first(self) -> None:
        """Wait for a signal beside the joining."""
        await self._next()
        self._early = True

    async def next(self) -> None:
        """Wait for the next signal that nothing has ended for."""
        if self._early:
            self._early = False
            return
        await self._next()


async def _member(settings: NodeSettings, rng: random.Random) -> Membership | None:
    """Return what a joining has brought; join if there is a new token."""
    folder, host_name = settings.state_dir, socket.gethostname()
    node_id = keep_node_id(folder, settings.node_id, host_name)
    joiner = Joiner(
        settings.server_url,
        folder,
        node_id,
        is_tls=settings.tls,
        pause=GrowingPause(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, rng=rng),
    )
    token = settings.node_token
    return await joiner.membership(token.get_secret_value() if token else None)


def _context(
    settings: NodeSettings, member: Membership | None
) -> ssl.SSLContext | None:
    """Return what the node's server shows; None without TLS."""
    if member is None or not member.has_tls or not settings.tls:
        return None
    context = server_context()
    try:
        member.show_certificate(settings.state_dir, context)
    except OSError as error:
        raise StartupError(
            f"the certificate of this node can't be used ({error}); make room in"
            f" {str(settings.state_dir)!r}, or join again with a new node token"
        ) from error
    return context


def _opener(member: Membership | None) -> Callable[[], aiohttp.ClientSession]:
    return keyless_session if member is None else member.open_session


@contextlib.asynccontextmanager
async def _renewing(
    settings: NodeSettings,
    member: Membership | None,
    context: ssl.SSLContext | None,
    rng: random.Random,
) -> AsyncIterator[None]:
    """Renew the certificate meanwhile, if there is one."""
    if member is None or context is None:
        yield
        return
    folder, url = settings.state_dir, settings.server_url
    async with member.open_session() as session:
        renewal = Renewal(session, url, folder, member, context, rng)
        async with scoped_task(renewal.run(), name="renewal"):
            yield
