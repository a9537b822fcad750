"""Hold what belongs to one pool, and is asked about its requests and its models."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ollama_proxy.base.errors import HoldLimitError
from ollama_proxy.core.failover import MOST_NODES
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.nodes.plain_request import is_plain
from ollama_proxy.core.ollama.catalog import Catalog
from ollama_proxy.core.ollama.routes import ColdAnswer
from ollama_proxy.core.plans import Observe, Relay, Wait
from ollama_proxy.core.waiting_order import turn_of
from ollama_proxy.fleet.gpu_use import GpuLook
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.leasing import Asked
from ollama_proxy.fleet.offer_models import OfferModels
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.restored_models import RestoredModels
from ollama_proxy.fleet.waiters import Ticket
from ollama_proxy.serving.catalog_refresher import CatalogRefresher
from ollama_proxy.serving.change_notes import made_from
from ollama_proxy.serving.extra_routes import ExtraRoutes
from ollama_proxy.serving.fleet_view import FleetView
from ollama_proxy.serving.hold_policy import HoldPolicy
from ollama_proxy.serving.house_catalog import HouseModelList
from ollama_proxy.serving.lesson_book import LessonBook
from ollama_proxy.serving.model_changes import ModelChanges
from ollama_proxy.serving.other_instances import OtherInstances
from ollama_proxy.serving.own_replies import OwnReplies
from ollama_proxy.serving.pool_status import PoolStatus
from ollama_proxy.serving.request_context import RequestContext, Stage
from ollama_proxy.serving.shared_pulls import Pulls
from ollama_proxy.serving.unknown_models import UnknownModels
from ollama_proxy.serving.whereabouts import Whereabouts
from ollama_proxy.store.ports import Place

_OK = 200
_NOTHING: Asked = {}
_BRINGING = frozenset({"/api/pull", "/api/create"})


@dataclass(frozen=True, slots=True)
class PoolServices:
    """Holds one pool, what it knows of its models, and what answers in its name.

    ``restored`` is None if models that clients pulled are not to be pulled again,
    ``offer_models`` where no server of others stands beside instances of ours,
    ``nodes`` where there is no house.
    """

    name: str
    pool: Pool
    hold: HoldPolicy
    place: Place
    places: Whereabouts
    fleet: FleetView
    catalogue: Catalog
    book: LessonBook
    unknown: UnknownModels
    keeper: CatalogRefresher
    extra_routes: ExtraRoutes
    restored: RestoredModels | None
    pulls: Pulls
    others: OtherInstances
    changes: ModelChanges
    gpus: Mapping[str, GpuLook]
    status: PoolStatus
    replies: OwnReplies
    offer_models: OfferModels | None = None
    nodes: HouseModelList | None = None

    def running_on_nodes(self) -> Iterable[dict[str, Any]]:
        """Return the entries of ``/api/ps`` of the pool's nodes."""
        return () if self.nodes is None else self.nodes.running()

    @property
    def is_one_of_several(self) -> bool:
        """Tell whether there are other pools."""
        return len(self.fleet.pools.names) > 1

    def lease(
        self, context: RequestContext, plan: Relay | Observe | Wait
    ) -> Lease | None:
        """Lease an instance that a plan counts on; None if none is ready now."""
        yields, model = not context.may_wake, context.model
        asked = self.asked_of_nodes(context) if self.pool.houses else _NOTHING
        if isinstance(plan, Observe):
            return self.pool.observe(context.only, yields=yields, model=model, **asked)
        return self.pool.try_lease(
            context.only,
            model=model,
            takes_slot=context.takes_slot,
            arrival=context.arrival,
            yields=yields,
            **asked,
        )

    async def lease_next(
        self, context: RequestContext, plan: Relay | Observe | Wait
    ) -> Lease | None:
        """Lease a node that a request was not sent to yet, or a ready instance.

        One whose slots are all taken is waited for, as long as the client does. Returns
        None if nothing that is ready suits the request: nothing is woken.
        """
        lease = self.lease(context, plan)
        if lease is not None or isinstance(plan, Observe):
            return lease
        loop = asyncio.get_running_loop()
        begun_at, context.stage = loop.time(), Stage.WAITING
        try:
            ticket = Ticket(turn_of(context.caller))
            return await self.lease_later(context, ticket, wait_s=0.0, joins=True)
        except HoldLimitError:
            return None
        finally:
            context.stage = Stage.SERVED
            context.wait_s += loop.time() - begun_at

    def lease_later(
        self, context: RequestContext, ticket: Ticket, *, wait_s: float, joins: bool
    ) -> Coroutine[Any, Any, Lease | None]:
        """Lease an instance that suits a request, once it is there, as `Pool` does."""
        return self.pool.lease(
            context.model,
            wait_s=wait_s,
            load=context.load,
            joins=joins or context.only is not None,
            only=context.only,
            takes_slot=context.takes_slot,
            ticket=ticket,
            arrival=context.arrival,
            yields=not context.may_wake,
            **self.asked_of_nodes(context),
        )

    def asked_of_nodes(self, context: RequestContext) -> Asked:
        """Return which nodes of the pool would do for a request, if it has any."""
        if not self.pool.houses:
            return _NOTHING
        return {
            "without": context.tried_on,
            "without_nodes": len(context.tried_on) >= MOST_NODES,
            "plain": is_plain(context),
            "brings": context.route.name in _BRINGING,
            "source": made_from(context),
        }

    def admit(self, context: RequestContext, wait: Wait) -> None:
        """Let a request begin to wait, and remember for whose sake it does."""
        if context.admitted is None and wait.seeks:
            self.unknown.note_wake(wait.seeks)
        if context.permit is not None and not wait.joins:
            context.permit.wish(self.name)
        context.admit(wait)

    def note_retry(self, context: RequestContext) -> None:
        """Take in that a request is asked again: after a 503, or by another server."""
        is_demand = context.takes_slot and context.may_wake
        if is_demand and context.only is None:
            self.pool.note_refused(context.arrival)

    def learn(self, context: RequestContext, answer: Any, on: LaunchId) -> None:
        """Learn from an instance's own answer which routes, models and files it has.

        ``on``: its launch.
        """
        if context.route.asleep is ColdAnswer.BLOB and answer.status == _OK:
            self.places.uploaded(context.path, on)
        self.extra_routes.heard(
            context.route, context.method, context.path, answer.status
        )
        self.unknown.learn(context, answer)

    def go_by_place(self, name: str) -> None:
        """Go by what is known of the models in another place from now on."""
        if name == self.place.name:
            return
        self.book.close()
        self.place.name = name
        self.book.reread()
        self.catalogue.begin_with(self.place.contents())

    def start(self) -> None:
        """Begin to own the instances, and to keep the catalogue true."""
        self.pool.start()
        self.keeper.start()
        if self.offer_models is not None:
            self.offer_models.start()

    async def aclose(self) -> None:
        """End what goes on for the models, and write down what is known of them."""
        await self.keeper.aclose()
        if self.offer_models is not None:
            await self.offer_models.aclose()
        self.book.close()
        await self.others.aclose()
        await self.pulls.aclose()
