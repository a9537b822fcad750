"""Let requests have an instance: at once if a slot is free, else after a wait."""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Unpack

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import HoldLimitError
from ollama_proxy.core.demand import Arrival, DemandMeter
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ollama.load_wish import LoadWish, LoadWishes
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.fleet.joiner import Joiner
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.fleet.leasing import Asked, Leasing
from ollama_proxy.fleet.waiters import Ticket, Waiters, Wants
from ollama_proxy.fleet.wakes import Wakes


class Admission:
    """Admits the requests of a pool to its instances, and wakes one for them.

    - ``accepts``: tells whether anything may be started now.
    - ``joiner``: connects servers of others, for which a request waits a moment.
    - ``spills``: tells whether servers of others lack a model that an offer of ours is
      known to have, or may pull, for a request that is plain or not. None: no model
      does.
    - ``helps``: tells whether an instance of ours may have a model. None: any may have
      any.
    """

    spills: Callable[[str, bool], bool] | None = None
    helps: Callable[[str], bool] | None = None

    def __init__(
        self,
        *,
        leasing: Leasing,
        waiters: Waiters,
        wakes: Wakes,
        joiner: Joiner,
        meter: DemandMeter,
        load_wishes: LoadWishes,
        accepts: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._leasing = leasing
        self._waiters = waiters
        self._wakes = wakes
        self._joiner = joiner
        self._meter = meter
        self._load_wishes = load_wishes
        self._accepts = accepts
        self._clock = clock
        self._stops = 0

    def stop(self) -> None:
        """End every wait, and those that would begin once a launch is written down."""
        self._stops += 1
        self._load_wishes.clear()
        self._waiters.give_up()

    def try_lease(
        self,
        only: LaunchId | None = None,
        *,
        model: str | None = None,
        takes_slot: bool = True,
        yields: bool = False,
        arrival: Arrival | None = None,
        **asked: Unpack[Asked],
    ) -> Lease | None:
        """Claim the ready instance that will answer soonest, if there is one.

        ``only``: that one. ``yields``: the request may not wake one, and keeps none. A
        request that ``takes_slot`` has to wait if all slots are taken, or if others
        wait for one. ``arrival``: that of the request; without it, the request is
        counted each time it asks.
        """
        lease = self._claim(
            only, model=model, takes_slot=takes_slot, yields=yields, asked=asked
        )
        if lease is not None and takes_slot and not yields:
            self._count(arrival or Arrival())
        return lease

    def _claim(
        self,
        only: LaunchId | None,
        *,
        model: str | None,
        takes_slot: bool,
        yields: bool,
        asked: Asked,
    ) -> Lease | None:
        if takes_slot and self._waiters and self._leasing.is_limited:
            return None
        plain = not takes_slot or asked.get("plain", False)
        own = only is None and self.has_to_be_own(model, plain=plain)
        if not asked:  # to unpack nothing takes 0.2 us, for each request
            return self._leasing.claim(
                only, model=model, takes_slot=takes_slot, own=own, yields=yields
            )
        return self._leasing.claim(
            only, model=model, takes_slot=takes_slot, own=own, yields=yields, **asked
        )

    def _count(self, arrival: Arrival) -> None:
        if self._leasing.is_measured:
            self._meter.note(arrival, self._clock.now())

    def note_refused(self, arrival: Arrival) -> None:
        """Take in that a request gets no lease: the next of its client is its retry."""
        self._count(arrival)
        self._meter.note_refused(arrival, self._clock.now())

    def has_to_be_own(self, model: str | None, *, plain: bool = True) -> bool:
        """Tell whether only an instance of ours can answer for a model.

        ``plain``: a node will do that generates text only; so it is taken to for what
        takes no slot, as nothing is started for that while nodes have the model.
        """
        return (
            model is not None and self.spills is not None and self.spills(model, plain)
        )

    def wakes_for(self, model: str | None) -> bool:
        """Tell whether a launch would help a request for a model."""
        return model is None or self.helps is None or self.helps(model)

    async def lease(
        self,
        model: str | None,
        *,
        wait_s: float,
        load: LoadWish | None = None,
        joins: bool = False,
        only: LaunchId | None = None,
        takes_slot: bool = True,
        ticket: Ticket | None = None,
        yields: bool = False,
        arrival: Arrival | None = None,
        **asked: Unpack[Asked],
    ) -> Lease | None:
        """Claim a ready instance; wake and wait for one if there is none.

        A request that ``joins`` waits for a launch of others, and wakes nothing. So
        does one that ``yields``, which is no demand either, and keeps no instance. With
        ``only`` the instance of that launch will do for it. One that ``takes_slot``
        waits for a free slot of a ready instance as long as its client does; ``ticket``
        tells its place then.

        Returns None if there is no instance after ``wait_s`` seconds, or as soon as it
        is certain that there will be none. Raises `HoldLimitError` if too many requests
        wait already, `StoreError` if the wake could not be written to disk.

        It is counted when it asks, not when it gets its slot: a queue that lasts would
        hide how much arrives. One that only one instance can serve asks for no other,
        so it counts with its slot.
        """
        arrival, is_demand = arrival or Arrival(), takes_slot and not yields
        if is_demand and only is None:
            self._count(arrival)
        try:
            lease = await self._claim_or_wait(
                model,
                wait_s=wait_s,
                load=load,
                joins=joins or yields,
                only=only,
                takes_slot=takes_slot,
                ticket=ticket,
                yields=yields,
                asked=asked,
            )
        except HoldLimitError:
            self._meter.note_refused(arrival, self._clock.now())
            raise
        if lease is None:
            self._meter.note_refused(arrival, self._clock.now())
        elif is_demand:
            self._count(arrival)
        return lease

    async def _claim_or_wait(
        self,
        model: str | None,
        *,
        wait_s: float,
        load: LoadWish | None,
        joins: bool,
        only: LaunchId | None,
        takes_slot: bool,
        ticket: Ticket | None,
        yields: bool,
        asked: Asked,
    ) -> Lease | None:
        """Do the same as `lease`, without counting the request."""
        claim = partial(
            self._claim,
            only,
            model=model,
            takes_slot=takes_slot,
            yields=yields,
            asked=asked,
        )
        if (lease := claim()) is not None:
            return lease
        plain = not takes_slot or asked.get("plain", False)
        own = only is None and self.has_to_be_own(model, plain=plain)
        is_ready = partial(
            self._leasing.has_any_for,
            only,
            own=own,
            yields=yields,
            model=model,
            **asked,
        )
        if not is_ready():
            wait_s = await self.request_instance(
                model, wait_s=wait_s, load=load, joins=joins, plain=plain
            )
            if (lease := claim()) is not None:
                return lease
            if wait_s <= 0 and not is_ready():
                return None
        self._wakes.look()
        claim = partial(
            self._leasing.claim,
            only,
            model=model,
            takes_slot=takes_slot,
            own=own,
            yields=yields,
            **asked,
        )
        of_nodes = _kind_of(model, asked) if self._leasing.has_nodes else ()
        return await self._waiters.wait(
            claim,
            wait_s,
            _wants(joins or not self.wakes_for(model), only, own=own),
            is_ready=is_ready,
            kind=(only, takes_slot, own, yields, of_nodes),
            ticket=ticket,
            model=model,
        )

    async def request_instance(
        self,
        model: str | None,
        *,
        wait_s: float,
        load: LoadWish | None = None,
        joins: bool = False,
        plain: bool = True,
    ) -> float:
        """Wake an instance for a request that needs ``load``, as `lease` does.

        Returns for how many seconds the request should wait: 0 if it is certain that
        there will be no instance. Raises `StoreError` if the wake could not be written
        to disk.
        """
        left_s = self.try_request_instance(
            model, wait_s=wait_s, load=load, joins=joins, plain=plain
        )
        if left_s is not None:
            return left_s
        stops = self._stops
        self._note_wanted(load)
        own = self.has_to_be_own(model, plain=plain)
        await self._wakes.wake(model, forced=False, own=own)
        if self._stops != stops:  # as the waiting requests are
            return 0.0
        return self._longest_wait_s(wait_s, joins=False)

    def try_request_instance(
        self,
        model: str | None,
        *,
        wait_s: float,
        load: LoadWish | None = None,
        joins: bool = False,
        plain: bool = True,
    ) -> float | None:
        """Do the same as `request_instance`, without awaiting anything.

        Returns None, and has done nothing, if a launch must be written to disk first.
        """
        if not joins and not self.wakes_for(model):
            return wait_s
        if not joins:
            own = self.has_to_be_own(model, plain=plain)
            is_lacking = own and not self._wakes.is_own_coming
            if is_lacking or self._wakes.must_reserve(model):
                return None
            self._note_wanted(load)
            self._wakes.join(model, own=own)
        return self._longest_wait_s(wait_s, joins=joins)

    def _longest_wait_s(self, wait_s: float, *, joins: bool) -> float:
        """Return how long a request waits that may wait for ``wait_s`` seconds."""
        is_in_vain = self._wakes.is_vain or not self._accepts()
        is_in_vain = is_in_vain or (joins and not self._wakes.is_coming)
        return 0.0 if is_in_vain else max(wait_s, self._joiner.grace_left_s(), 0.0)

    def _note_wanted(self, load: LoadWish | None) -> None:
        if load is not None:
            self._load_wishes.add(load)


def _kind_of(model: str | None, asked: Asked) -> Hashable:
    """Return what is equal for requests that the same nodes suit."""
    return (
        None if model is None else full_model_name(model),
        frozenset(asked.get("without", ())),
        asked.get("without_nodes", False),
        asked.get("plain", False),
        asked.get("brings", False),
        asked.get("source", ""),
    )


def _wants(joins: bool, only: LaunchId | None, *, own: bool) -> Wants:  # noqa: FBT001
    """Say which instances a waiting request may have started."""
    if joins or only is not None:  # more of them would not help the latter
        return Wants.TO_JOIN
    return Wants.TO_WAKE_OWN if own else Wants.TO_WAKE
