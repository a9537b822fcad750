"""Build the hub: what knows the machines that register themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog
from aiohttp import web

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.listen_address import is_every_address
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import Timing
from ollama_proxy.composition.access import Door
from ollama_proxy.composition.fleet import Fleet
from ollama_proxy.composition.legacy import legacy_rule, want_keys
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.nodes.node_keys import NodeKey
from ollama_proxy.core.nodes.node_state import StateLimits
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.gateway.keyring import Keyring
from ollama_proxy.hub.authority import FOLDER, HubAuthority
from ollama_proxy.hub.beat_access import NodeAccess
from ollama_proxy.hub.beat_door import BeatDoor
from ollama_proxy.hub.beat_rules import RegistryLimits
from ollama_proxy.hub.hub_certificate import renew_hub_certificate
from ollama_proxy.hub.join_tokens import JoinTokens
from ollama_proxy.hub.joining import Joining
from ollama_proxy.hub.node_keyring import NodeKeyring
from ollama_proxy.hub.node_proof import NodeProver
from ollama_proxy.hub.own_addresses import OwnAddressBook
from ollama_proxy.hub.reach import Reach
from ollama_proxy.hub.registry import NodeRegistry
from ollama_proxy.hub.tunnelled_links import TunnelledLinks
from ollama_proxy.hub.tunnels import Tunnels
from ollama_proxy.hub.wanted import Wanted
from ollama_proxy.server.fast.beats import FastBeats
from ollama_proxy.server.hub.beats import BeatHandlers
from ollama_proxy.server.hub.jobs import JobHandlers
from ollama_proxy.server.hub.joins import JoinRoutes
from ollama_proxy.server.hub.nodes import NodeHandlers
from ollama_proxy.server.hub.token_orders import TokenOrders
from ollama_proxy.server.hub.tunnel_route import TunnelRoute
from ollama_proxy.serving.relay import Services


@dataclass(frozen=True, slots=True)
class Hub:
    """Holds the nodes, their keys, whose beats are taken, and how nodes are reached."""

    registry: NodeRegistry
    authority: HubAuthority
    access: NodeAccess
    keys: NodeKeyring
    door: BeatDoor
    joining: Joining
    tunnels: Tunnels
    reach: Reach
    audit: Audit
    token_orders: TokenOrders
    tasks: TaskOwner

    def start(self) -> None:
        """Go on with the nodes of an earlier process, and let time pass."""
        self._warn_of_lost_authority()
        self.registry.restore()
        self.tasks.spawn(self.registry.run(), name="nodes")
        self.tasks.spawn(renew_hub_certificate(self.authority), name="hub certificate")

    def _warn_of_lost_authority(self) -> None:
        joined = sum(1 for _ in self.keys)
        if self.authority.is_new and joined:
            structlog.get_logger().warning(
                log.HUB_AUTHORITY_LOST,
                reason=f"the folder {FOLDER!r} of the state folder is new, and {joined}"
                f" {'node has' if joined == 1 else 'nodes have'} joined with the former"
                " one; stop this process and put that back from a back-up, or have each"
                " join again, by a line of `ollama-proxy node-token`",
            )

    async def aclose(self) -> None:
        """End what is asked of nodes; write what has changed."""
        await self.tasks.aclose()
        await self.reach.aclose()
        self.registry.flush()

    def fast_beats(self, clock: Clock) -> FastBeats:
        """Return what takes plain beats."""
        return FastBeats(self.door, clock)

    def routes(self, services: Services, timing: Timing) -> list[web.RouteDef]:
        """Return the routes of nodes, their owners, and clients of the former hub."""
        groups = (
            JobHandlers(services, timing),
            BeatHandlers(self.door),
            JoinRoutes(self.joining, self.access),
            TunnelRoute(self.tunnels, self.access.key_of),
            NodeHandlers(self.registry, self.keys, self.tunnels, self.audit),
            self.token_orders,
        )
        return [route for group in groups for route in group.routes()]


class _Relinking:
    """Has the registry ask again how a node is reached, once there is one."""

    def __init__(self) -> None:
        self.registry: NodeRegistry | None = None

    def __call__(self, node_id: str) -> None:
        if self.registry is not None:
            self.registry.relink(node_id)


class HubBuilder:
    """Builds the hub around the pools. ``tunnels``: what the pools' client dials."""

    def __init__(self) -> None:
        self._relink = _Relinking()
        self.tunnels = Tunnels(self._relink)

    def build(self, fleet: Fleet, keyring: Keyring, audit: Audit, door: Door) -> Hub:
        """Return the hub; nothing runs yet. ``door``: how it is reached.

        Raises `StartupError` if its certificate authority can't be used.
        """
        shared, settings = fleet.shared, fleet.shared.settings
        clock, store = shared.clock, shared.store
        authority, nodes = HubAuthority(settings.state_dir, clock), NodeKeyring(store)
        own = OwnAddressBook(door.listening or _listening(settings), clock)
        access = NodeAccess(
            nodes,
            legacy_rule(settings, is_local=door.is_local),
            lambda: want_keys(settings, was_made=keyring.are_keys_needed),
        )
        prove = NodeProver(shared.probing)
        reach = Reach(
            authority, nodes, prove, own.now, takes_former=access.takes_former
        )
        links = TunnelledLinks(self.tunnels, reach, reach.token_of)
        houses = [one for parts in fleet.pools.values() for one in parts.pool.houses]
        wanted = Wanted(
            settings.hub_wanted_models, lambda: (node.beat for node in registry), clock
        )
        registry = NodeRegistry(
            clock,
            store,
            houses,
            links,
            limits=_limits(settings),
            wanted=wanted,
            is_keyed=nodes.has,
        )
        reach.relink = self._relink
        self._relink.registry = registry
        keyring.on_needed(reach.end_former)
        nodes.on_first(reach.end_former)
        nodes.on_ended(partial(_end_node, self.tunnels, registry))
        tokens = JoinTokens(store, clock, audit)
        return Hub(
            registry=registry,
            authority=authority,
            access=access,
            keys=nodes,
            door=BeatDoor(registry, access),
            joining=Joining(authority, tokens, nodes, clock),
            tunnels=self.tunnels,
            reach=reach,
            audit=audit,
            token_orders=_token_orders(
                settings,
                tokens,
                authority,
                clock,
                lambda: _end_with_joining(access, registry),
            ),
            tasks=TaskOwner(),
        )


def _end_node(tunnels: Tunnels, registry: NodeRegistry, key: NodeKey) -> None:
    """End what goes on with a key that is no longer taken."""
    tunnels.drop(key.node_id)
    registry.relink(key.node_id)


def _end_with_joining(access: NodeAccess, registry: NodeRegistry) -> list[str]:
    """Return the names of nodes without a key that the next joining ends."""
    if not access.ends_with_first_key:
        return []
    return sorted(node.node_id for node in registry if not node.sender.has_key)


def _token_orders(
    settings: Settings,
    tokens: JoinTokens,
    authority: HubAuthority,
    clock: Clock,
    ends_with_joining: Callable[[], list[str]],
) -> TokenOrders:
    """Return what makes tokens for where nodes reach this hub."""
    listen, has_certificate = settings.listen, settings.tls_cert is not None
    has_tls = has_certificate
    if settings.hub_address is not None:
        listen, has_tls = settings.hub_address, True
    return TokenOrders(
        tokens,
        authority.fingerprint,
        clock,
        host="" if is_every_address(listen.host) else listen.host,
        port=None if has_certificate else listen.port,
        tls_port=listen.port if has_tls else None,
        ends_with_joining=ends_with_joining,
    )


def _limits(settings: Settings) -> RegistryLimits:
    return RegistryLimits(
        StateLimits(
            ttl_s=settings.heartbeat_ttl,
            forget_s=settings.heartbeat_offline,
            max_failures=settings.node_max_failures,
        ),
        beat_s=settings.heartbeat_interval,
    )


def _listening(settings: Settings) -> list[tuple[str, int]]:
    """Return where the proxy will listen, by its settings."""
    found = (settings.listen, settings.hub_listen, settings.metrics_listen)
    return [(one.host, one.port) for one in found if one is not None]
