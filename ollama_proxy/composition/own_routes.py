"""Build the handlers of the proxy's own endpoints."""

from aiohttp import web

from ollama_proxy.composition.fleet import Fleet
from ollama_proxy.composition.parts import Parts
from ollama_proxy.fleet.neighbours import Neighbours
from ollama_proxy.server.admin.handlers import AdminHandlers
from ollama_proxy.server.admin.keys import KeyOrders
from ollama_proxy.server.admin.login import LoginHandlers
from ollama_proxy.server.admin.pool_orders import PoolOrders
from ollama_proxy.server.admin.ready_wait import ReadyWait
from ollama_proxy.server.admin.usage import UsageHandlers
from ollama_proxy.server.page.handler import PageHandlers
from ollama_proxy.serving.relay import Services
from ollama_proxy.serving.status import Described, Status


def own_routes(
    fleet: Fleet,
    services: Services,
    parts: Parts,
    *,
    neighbours: Neighbours | None,
    certificate: Described | None,
) -> list[web.RouteDef]:
    """Return the routes of everything that is not Ollama's."""
    gateway, exposure = parts.gateway, parts.access.exposure
    shared, settings, pools = fleet.shared, fleet.shared.settings, services.pools
    offer, offered = fleet.first.offer, settings.pools[0].offers
    named = next((one for one in offered if one.name == offer.name), offered[0])
    status = Status(
        pools,
        shared.clock,
        backend=offer.backend_name or offer.name,
        backend_reason=settings.reason_of(named),
        disk=shared.store,
        neighbours=neighbours,
        certificate=certificate,
        keys_file=gateway.file,
        access=exposure,
        hub=parts.hub.access if parts.hub is not None else None,
    )
    own = AdminHandlers(
        pools=pools,
        status=status,
        metrics=shared.metrics,
        journal=shared.store,
        audit=gateway.audit,
        active=services.active,
    )
    keys = KeyOrders(
        gateway.keyring,
        gateway.changes,
        shared.clock,
        gateway.limits,
        exposure.needs_key,
    )
    orders = PoolOrders(pools, status, gateway.audit, gateway.paid)
    usage = UsageHandlers(gateway.usage, gateway.keyring)
    waits = ReadyWait(pools, parts.ready)
    logins = LoginHandlers(gateway.keyring, gateway.sessions)
    nodes = None if parts.hub is None else parts.hub.registry
    page = PageHandlers(status, services.active, shared.clock, nodes)
    groups = (own, orders, keys, usage, waits, logins, page)
    return [route for group in groups for route in group.routes()]
