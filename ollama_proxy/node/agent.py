"""Run the agent: bind, beat and serve until a signal, then end in good order."""

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import structlog
from aiohttp import web

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.serving_address import OF_AGENT, locked, written_down
from ollama_proxy.base.tasks import cancel_and_wait, scoped_task, start_task
from ollama_proxy.core.nodes.wanted import is_public
from ollama_proxy.node.app import NodeApp
from ollama_proxy.node.beat import Facts
from ollama_proxy.node.execute import Executor
from ollama_proxy.node.free_space import FreeSpace
from ollama_proxy.node.heartbeat import Heartbeat
from ollama_proxy.node.hub_access import HubAccess
from ollama_proxy.node.hub_addresses import HubAddresses
from ollama_proxy.node.hub_answer import HubAnswer
from ollama_proxy.node.hub_client import HubClient
from ollama_proxy.node.identity import keep_node_id
from ollama_proxy.node.listener import bind, serving
from ollama_proxy.node.local_ollama import LocalOllama
from ollama_proxy.node.machine import GpuMeter, measure_load, own_address
from ollama_proxy.node.puller import Puller
from ollama_proxy.node.relay import OllamaRelay
from ollama_proxy.node.settings import NodeSettings
from ollama_proxy.node.tunnel_keeper import TunnelKeeper
from ollama_proxy.node.workload import Workload
from ollama_proxy.upstream.client import UpstreamClient
from ollama_proxy.upstream.endpoint import Upstream
from ollama_proxy.upstream.loop_mark import LoopMark

_BEAT_S = 10.0

Signal = Callable[[], Awaitable[object]]
"""Waits for a signal: the first one ends in good order, the second one at once."""


async def run_node(
    settings: NodeSettings,
    *,
    clock: Clock,
    rng: random.Random,
    next_signal: Signal,
    announce: Callable[[str], None],
    access: HubAccess | None = None,
    context: ssl.SSLContext | None = None,
    open_session: Callable[[], aiohttp.ClientSession] = aiohttp.ClientSession,
) -> None:
    """Report to the hub and work for it until a signal. Raises `StartupError`.

    ``access``: what a joining has brought; with it the hub gets all of Ollama.
    ``open_session`` returns what asks the hub, with the key of this node if it has one.
    ``context``: the certificate that the hub sees; None: no TLS.
    ``announce`` gets one line when requests are taken. After the first signal the hub
    learns that this node drains, and what goes on has NODE_REQUEST_TIMEOUT to end.
    """
    if settings.tunnel and access is None:
        raise StartupError(
            "tunnels need a node that has joined its hub; run `ollama-proxy node-token`"
            " on the hub, and start this agent once with the line that it prints"
        )
    bound = bind(settings.node_port)
    with contextlib.closing(bound):
        host_name = socket.gethostname()
        node = _Node(
            settings,
            keep_node_id(settings.state_dir, settings.node_id, host_name),
            host_name,
            bound.getsockname()[1],
            boot_id=f"{rng.getrandbits(128):032x}",
            access=access,
            context=context,
        )
        try:
            async with open_session() as session:
                await node.serve(session, bound, clock, rng, next_signal, announce)
        finally:
            await node.client.aclose()


class _Node:
    """Holds the parts of a running agent."""

    def __init__(
        self,
        settings: NodeSettings,
        node_id: str,
        host_name: str,
        port: int,
        *,
        boot_id: str,
        access: HubAccess | None,
        context: ssl.SSLContext | None,
    ) -> None:
        self._settings, self._node_id, self._port = settings, node_id, port
        self._host_name, self._boot_id, self._seq = host_name, boot_id, 0
        self._access, self._context = access, context
        mark = LoopMark(node_id)
        self.client = UpstreamClient(mark)
        self._upstream = Upstream(settings.ollama_base_url, setting="OLLAMA_BASE_URL")
        self._limit_s = min(_BEAT_S, settings.heartbeat_interval)
        self._ollama = LocalOllama(self.client, self._upstream, look_s=self._limit_s)
        self._workload = Workload()
        self._executor = Executor(
            self.client,
            self._ollama,
            self._workload,
            self._upstream,
            first_byte_s=settings.node_request_timeout,
        )
        self._relay = OllamaRelay(self.client, mark, self._workload, self._upstream)
        self._hub = HubAddresses(*settings.hub)
        self._gpus = GpuMeter()
        self._space = FreeSpace(settings.models_dirs)
        self._puller: Puller | None = None

    async def serve(
        self,
        session: aiohttp.ClientSession,
        bound: socket.socket,
        clock: Clock,
        rng: random.Random,
        next_signal: Signal,
        announce: Callable[[str], None],
    ) -> None:
        """Beat and serve until a signal; then drain."""
        logger = structlog.get_logger()
        await self._hub.refresh()
        heartbeat = Heartbeat(
            HubClient(session, self._settings.beat_url, limit_s=self._limit_s),
            self._facts,
            interval_s=self._settings.heartbeat_interval,
            clock=clock,
            rng=rng,
            on_answer=self._heed,
        )
        self._workload.on_news = heartbeat.hurry
        puller = self._puller = Puller(
            self.client,
            self._ollama,
            self._workload,
            self._upstream,
            clock=clock,
            rng=rng,
            on_pulled=heartbeat.hurry,
            free=self._space.measure,
        )
        async with (
            serving(self._app(), bound, self._context) as server,
            self._tunnels(session, server, rng),
        ):
            line = self._settings.started_line(
                self._node_id,
                self._port,
                str(self._hub),
                has_joined=self._access is not None,
            )
            announce(line)
            logger.info(log.NODE_STARTED, node_id=self._node_id, reason=line)
            with self._written_down():
                async with (
                    scoped_task(puller.run(), name="puller"),
                    scoped_task(self._ollama.watch(heartbeat.hurry), name="watch"),
                    scoped_task(heartbeat.run(), name="heartbeat") as beating,
                ):
                    await _first(next_signal, beating)
                logger.info(log.NODE_STOPPING)
                await self._drain(heartbeat, next_signal)

    @contextlib.contextmanager
    def _written_down(self) -> Iterator[None]:
        """Let the health check of this machine know where this agent listens."""
        folder, url = (
            self._settings.state_dir,
            f"{self._scheme}://127.0.0.1:{self._port}",
        )
        with locked(folder, OF_AGENT), written_down(folder, url, files=OF_AGENT):
            yield

    @property
    def _scheme(self) -> str:
        return "http" if self._context is None else "https"

    @contextlib.asynccontextmanager
    async def _tunnels(
        self, session: aiohttp.ClientSession, server: web.Server, rng: random.Random
    ) -> AsyncIterator[None]:
        """Keep tunnels to the hub open, if this node shall be reached through them."""
        if not self._settings.tunnel:
            yield
            return
        keeper = TunnelKeeper(
            session,
            self._settings.tunnel_url,
            server,
            slots=self._settings.slots or 1,
            rng=rng,
        )
        async with scoped_task(keeper.run(), name="tunnels"):
            yield

    async def _drain(self, heartbeat: Heartbeat, next_signal: Signal) -> None:
        """Tell the hub, then let generations end, until a second signal or too late."""
        self._workload.is_ending = True
        ended = start_task(self._drained(heartbeat), name="drain")
        second = start_task(_waited(next_signal), name="second signal")
        try:
            await asyncio.wait(
                {ended, second},
                return_when=asyncio.FIRST_COMPLETED,
                timeout=self._settings.node_request_timeout,
            )
        finally:
            await cancel_and_wait(second)
            await cancel_and_wait(ended)

    async def _drained(self, heartbeat: Heartbeat) -> None:
        """Beat at once, go on beating, and return when no generation goes on."""
        await heartbeat.beat()
        async with scoped_task(heartbeat.run_later(), name="heartbeat"):
            await self._workload.wait_idle()

    def _app(self) -> NodeApp:
        return NodeApp(
            self._node_id,
            self._hub,
            self._executor,
            self._relay,
            self._workload,
            host_name=self._host_name,
            access=self._access,
        )

    def _heed(self, answer: HubAnswer) -> bool:
        """Drain and pull as the hub wants; True if it has to learn of a change."""
        workload, is_changed = self._workload, False
        if answer.is_drained != workload.is_drained:
            workload.is_drained, is_changed = answer.is_drained, True
            event = log.NODE_DRAINED if answer.is_drained else log.NODE_UNDRAINED
            structlog.get_logger().info(event, reason="by order of the hub")
        if self._puller is not None:
            wanted = answer.wanted
            if self._access is None:  # another server may answer as this hub
                wanted = tuple(filter(is_public, wanted))
            self._puller.want(wanted)
        return is_changed

    async def _facts(self) -> Facts:
        """Gather a snapshot; the hub's addresses are looked up meanwhile."""
        ollama, gpus, space, _ = await asyncio.gather(
            self._ollama.look(),
            self._gpus.measure(),
            self._space.measure(),
            self._hub.refresh(),
        )
        self._seq += 1
        ipv4, ipv6 = (
            own_address(family, self._hub.of_family(family))
            for family in (socket.AF_INET, socket.AF_INET6)
        )
        return Facts(
            node_id=self._node_id,
            host_name=self._host_name,
            ipv4=ipv4,
            ipv6=ipv6,
            port=self._port,
            scheme=self._scheme,
            boot_id=self._boot_id,
            seq=self._seq,
            load=measure_load(),
            gpus=gpus,
            ollama=ollama,
            slots=self._settings.slots,
            in_flight=self._workload.in_flight,
            is_draining=self._workload.is_draining,
            labels=dict(self._settings.labels.wanted),
            disk_free=space,
            pulling=self._puller.pulling if self._puller is not None else None,
        )


async def _waited(next_signal: Signal) -> None:
    await next_signal()


async def _first(next_signal: Signal, beating: asyncio.Task[None]) -> None:
    """Wait for a signal, or for the beats to end by a fault: then so does the agent."""
    async with scoped_task(_waited(next_signal), name="signal") as signalled:
        await asyncio.wait({signalled, beating}, return_when=asyncio.FIRST_COMPLETED)
