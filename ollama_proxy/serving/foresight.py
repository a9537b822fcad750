"""Foresee what requests cost, and tell the spending of keys which instances run."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, Protocol

from ollama_proxy.core.access.spending import Forecast, price_in_millionths
from ollama_proxy.core.access.work import Work
from ollama_proxy.core.lifecycle.record import AT_REST, Record, State
from ollama_proxy.fleet.backend import Backend, EndsAlone, SupportsPrices
from ollama_proxy.fleet.controller import Controller
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.fleet.survey import BootTimes, usual_boot_s
from ollama_proxy.gateway.launch_meter import LaunchTerms
from ollama_proxy.gateway.spending import Spending

_LONGEST_IDLE_S: Final = 86_400.0
"""What is reserved for an instance that is kept for ever: a day of it."""

_FREE: Final = Forecast()


def price_of(offer: Offer) -> int | None:
    """Return what an instance costs, in millionths an hour; None: unknown.

    A server of others and a process on this machine are free.
    """
    backend = offer.backend
    if backend.traits.is_free:
        return 0
    per_hour = backend.prices.per_hour if isinstance(backend, SupportsPrices) else None
    return price_in_millionths(offer.price_per_hour if per_hour is None else per_hour)


class NamedPool(Protocol):
    """Holds a pool with its name."""

    @property
    def name(self) -> str:
        """Return the name."""

    @property
    def pool(self) -> Pool:
        """Return the pool."""


class Pools(Protocol):
    """Holds all pools, and knows which of them serves a model."""

    def __iter__(self) -> Iterator[NamedPool]: ...

    def __getitem__(self, name: str) -> NamedPool: ...

    @property
    def of_model(self) -> Callable[[str], str | None]:
        """Return what finds the pool of a model; None if no pool serves it."""


class PoolForesight:
    """Foresees the cost of requests by the pools that serve them."""

    def __init__(self, pools: Pools, boots: BootTimes) -> None:
        self._pools = pools
        self._boots = boots
        self._prices: dict[str, int] = {}
        self.costs_anything = any(
            self._price(one.offer) != 0 for _, one in self._controllers()
        )

    def forecast(self, work: Work, *, may_wake: bool) -> Forecast:
        """Return what a request costs at most, by the pool of its model.

        One that names no model may be served by any pool.
        """
        name = self._pools.of_model(work.model) if work.model else None
        if name is not None:
            pool = self._pools[name].pool
            return self._of(pool, may_wake=may_wake, model=work.model)
        forecasts = [self._of(one.pool, may_wake=may_wake) for one in self._pools]
        unpriced = next((one for one in forecasts if one.unpriced), None)
        return unpriced or max(forecasts, key=lambda one: one.reserve(1.0))

    def forecast_wake(self, pool: str) -> Forecast:
        """Return what an order to wake an instance of a pool costs at most."""
        return self._of(self._pools[pool].pool, may_wake=True)

    def _of(self, pool: Pool, *, may_wake: bool, model: str = "") -> Forecast:
        own = [one for one in pool.controllers if self._price(one.offer) != 0]
        if not own:
            return _FREE
        unpriced = next((c.offer for c in own if self._price(c.offer) is None), None)
        if unpriced is not None:
            return Forecast(unpriced=_no_price(unpriced))
        ready = [c for c in pool.controllers if c.record.state is State.READY]
        spills = bool(model) and not ready and pool.spills(model)
        if pool.is_ready and not spills:
            return Forecast(self._dearest(ready))
        wakes = may_wake and (spills or pool.would_launch)
        boot_s = max(self._boot_s(one) for one in own) if wakes else 0.0
        idle_s = max(_idle_s(one) for one in own) if wakes else 0.0
        return Forecast(self._dearest(own), wakes, boot_s, idle_s)

    def _price(self, offer: Offer) -> int | None:
        """Return what an instance costs; a cloud is asked again only at a launch.

        Asking takes some microseconds, for each offer of each request.
        """
        price = self._prices.get(offer.name)
        if price is None and (price := price_of(offer)) is not None:
            self._prices[offer.name] = price
        return price

    def _dearest(self, controllers: Sequence[Controller]) -> int:
        return max((self._price(one.offer) or 0 for one in controllers), default=0)

    def _terms(self, controller: Controller) -> LaunchTerms:
        """Return what an instance costs, and for how long it may."""
        offer = controller.offer
        alone_s = _unattended_s(offer.backend)
        price = self._price(offer) or 0
        boot_s, idle_s = self._boot_s(controller), _idle_s(controller)
        return LaunchTerms(price, boot_s, idle_s, alone_s)

    def _boot_s(self, controller: Controller) -> float:
        return usual_boot_s(controller.offer, self._boots)

    def watch(self, spending: Spending) -> None:
        """Tell the spending of every launch from now on."""
        spending.foresight = self
        for pool, controller in self._controllers():
            controller.subscribe(partial(self._note, spending, pool, controller))

    def adopt(self, spending: Spending) -> None:
        """Tell the spending of the launches that an earlier process left."""
        for pool, controller in self._controllers():
            self._note(spending, pool, controller, controller.record, controller.record)

    def _controllers(self) -> Iterator[tuple[str, Controller]]:
        for services in self._pools:
            for controller in services.pool.controllers:
                yield services.name, controller

    def _note(
        self,
        spending: Spending,
        pool: str,
        controller: Controller,
        before: Record,
        after: Record,
    ) -> None:
        """Take in a change of state of an instance."""
        is_new = before.launch_id != after.launch_id
        is_over = is_new or after.state in AT_REST
        if before.launch_id is not None and is_over:
            spending.gone(before.launch_id)
        if after.launch_id is not None and after.state not in AT_REST:
            if is_new:
                self._prices.pop(controller.offer.name, None)
            terms = self._terms(controller)
            spending.launched(after.launch_id, pool, terms, is_new=is_new)
            if after.state is State.READY:
                spending.ready(after.launch_id, pool)


def _idle_s(controller: Controller) -> float:
    if controller.policy.is_kept:
        return _LONGEST_IDLE_S
    return min(controller.policy.idle_timeout_s, _LONGEST_IDLE_S)


def _unattended_s(backend: Backend) -> float:
    """Return how long an instance runs without a proxy; for ever if it is not known."""
    limit_s = backend.unattended_s if isinstance(backend, EndsAlone) else None
    return math.inf if limit_s is None else limit_s


def _no_price(offer: Offer) -> str:
    return (
        f"the price of the offer {offer.name!r} is not known; set its price_per_hour"
        " (in the environment: …_PRICE_PER_HOUR)"
    )
