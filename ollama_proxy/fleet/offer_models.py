"""Know which models the offers of a pool have, where a server of others belongs to it.

A request for a model that the server lacks goes to an instance of ours, if an offer is
known to have the model, or pulls it. Without that knowledge the server answers.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.core.lifecycle.record import Record, State
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.leased_instance import LeasedInstance
from ollama_proxy.fleet.readiness import PreparationError
from ollama_proxy.upstream.endpoint import Upstream

_LOOKED_EVERY_S = 30.0
_LOOK_S = 10.0

Present = Callable[[Upstream], Awaitable[set[str]]]
"""Asks an instance for the full names of its models."""


class OfferModels:
    """Holds the names of the models of each offer, as its last instance listed them.

    ``known`` are those of earlier processes, by offer; ``save`` is called with an offer
    and its names whenever these change.
    """

    def __init__(
        self,
        controllers: Sequence[Controller],
        *,
        present: Present,
        known: Mapping[str, frozenset[str]],
        save: Callable[[str, frozenset[str]], None],
    ) -> None:
        self._controllers = tuple(controllers)
        self._present = present
        self._save = save
        self._names = dict(known)
        self._pulled = {
            full_model_name(model)
            for one in controllers
            if not one.offer.is_external
            for model in one.offer.models
        }
        self._lists: dict[LeasedInstance, frozenset[str]] = {}
        self._stale = asyncio.Event()
        self._tasks = TaskOwner()
        self._log = structlog.get_logger()
        for controller in controllers:
            controller.subscribe(partial(self._on_transition, controller))

    def start(self) -> None:
        """Begin to ask each instance that is ready."""
        self._tasks.spawn(self._run(), name="models of offers")

    async def aclose(self) -> None:
        """Ask no more."""
        await self._tasks.aclose()

    def models_changed(self) -> None:
        """Have the ready instances asked soon."""
        self._stale.set()

    def spills(self, model: str, _plain: bool = True) -> bool:  # noqa: FBT001, FBT002
        """Tell whether ready servers of others lack a model that an offer of ours has.

        False as long as the list of one of these servers is unknown.
        """
        name = full_model_name(model)
        lists = [self._lists.get(one) for one in self._ready_others()]
        if not lists or any(names is None or name in names for names in lists):
            return False
        return self.has_own(name)

    def has_own(self, full_name: str) -> bool:
        """Tell whether an offer of ours is known to have a model, or pulls it."""
        return full_name in self._pulled or any(
            full_name in names for names in self._names.values()
        )

    def are_others_ready(self) -> bool:
        """Tell whether a server of others is ready."""
        return bool(self._ready_others())

    def is_lacking(self, instance: LeasedInstance, full_name: str) -> bool:
        """Tell whether the last list of an instance lacks a model."""
        names = self._lists.get(instance)
        return names is not None and full_name not in names

    def is_with_others(self, full_name: str) -> bool:
        """Tell whether a ready server of others has a model, or may have it."""
        return any(not self.is_lacking(one, full_name) for one in self._ready_others())

    def _ready_others(self) -> list[Controller]:
        """Return the servers of others that are ready."""
        return [
            one
            for one in self._controllers
            if one.offer.is_external and one.record.state is State.READY
        ]

    def own(self) -> list[str]:
        """Return the full names of all models that our offers are known to have."""
        return [name for names in self._names.values() for name in names]

    def _on_transition(
        self, controller: Controller, _before: Record, after: Record
    ) -> None:
        if after.state is State.READY:
            self._stale.set()
        elif after.state is State.STOPPING:
            self._lists.pop(controller, None)

    async def _run(self) -> None:
        while True:
            self._stale.clear()
            for controller in self._controllers:
                if controller.record.state is State.READY:
                    await self._ask(controller)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOKED_EVERY_S):
                    await self._stale.wait()

    async def _ask(self, controller: Controller) -> None:
        """Ask one instance; what it listed before stays true if it does not answer."""
        upstream, launch_id = controller.upstream, controller.record.launch_id
        if upstream is None:
            return
        try:
            async with asyncio.timeout(_LOOK_S):
                names = frozenset(await self._present(upstream))
        except (PreparationError, TimeoutError) as error:
            self._log.warning(log.CATALOGUE_FAILED, error=str(error))
            return
        if controller.record.launch_id != launch_id:
            return
        self._lists[controller] = names
        offer = controller.offer.name
        if not controller.offer.is_external and self._names.get(offer) != names:
            self._names[offer] = names
            self._save(offer, names)
