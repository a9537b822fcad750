"""Hold what the settings say of pools and of their offers. Values only.

There is always one pool with one offer at least: without tables of that kind these are
the pool ``default`` and the offer that is called as the backend that is used.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ollama_proxy.base.fields import BackendSettings
from ollama_proxy.config.selection import HUB
from ollama_proxy.core.ollama.model_globs import ModelGlob, ModelGroups
from ollama_proxy.core.pool_policy import PoolPolicy

DEFAULT_POOL: Final = "default"


@dataclass(frozen=True, slots=True)
class OfferSpec:
    """Names a backend, with the settings that instances of one kind are made from.

    - ``settings``: the backend's; ``options``: those of a plug-in that declares none.
    - ``slots``: requests that an instance gets at a time; None: not set.
    - ``price_per_hour``, in ``currency``: from the settings; None: not set.
    - ``env``: variables of Ollama on its instances.
    - ``place``: where it is set, for people; empty if it follows from the backend.
    """

    name: str
    backend: str
    settings: BackendSettings = field(default_factory=BackendSettings)
    slots: int | None = None
    price_per_hour: float | None = None
    currency: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    place: str = ""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Says which models a pool serves, from which offers, and how many instances.

    ``offers`` are in order of preference; ``hold_s`` is how long its requests may wait
    for readiness. The instance that takes uploads is one of the pool with ``uploads``:
    there is one such pool.
    """

    name: str
    models: tuple[ModelGlob, ...]
    offers: tuple[OfferSpec, ...]
    policy: PoolPolicy
    hold_s: float = 0.0
    uploads: bool = True

    @property
    def first_own(self) -> OfferSpec:
        """Return the first offer that is no house of nodes; the first if all are."""
        own = (one for one in self.offers if one.backend != HUB)
        return next(own, self.offers[0])


@dataclass(frozen=True, slots=True)
class Pools:
    """Holds every pool, in the order in which models find theirs, and every offer.

    An offer may be there that no pool uses.
    """

    pools: tuple[PoolSpec, ...]
    offers: tuple[OfferSpec, ...]
    notices: tuple[str, ...] = ()


def groups_of(pools: Iterable[PoolSpec]) -> ModelGroups:
    """Return which models belong to which pool."""
    return ModelGroups((pool.name, pool.models) for pool in pools)


def models_of(
    offer: OfferSpec, pools: Sequence[PoolSpec], models: Iterable[str]
) -> tuple[str, ...]:
    """Return which of some models an offer's instances must have, in any pool."""
    groups = groups_of(pools)
    using = {pool.name for pool in pools if offer in pool.offers}
    return tuple(one for one in models if groups.group_of(one) in using)


def implicit_offer(
    backend: str, settings: BackendSettings, options: Mapping[str, object]
) -> OfferSpec:
    """Return the offer that follows from the backend that is used."""
    return OfferSpec(backend, backend, settings, options=options)


def with_house(
    named: OfferSpec, settings: BackendSettings | None
) -> tuple[OfferSpec, ...]:
    """Return the offers where no file has any: before the named one the nodes.

    ``settings``: of the nodes of the hub; None without them.
    """
    if settings is None:
        return (named,)
    house = OfferSpec("house", "hub", settings, place="OLLAMA_PROXY_HUB")
    return (house,) if named.backend == house.backend else (house, named)


def implicit_pool(
    offers: Sequence[OfferSpec], *, idle_timeout_s: float, hold_s: float
) -> PoolSpec:
    """Return the one pool of settings that have none: all models, one instance."""
    policy = PoolPolicy(idle_timeout_s=idle_timeout_s)
    return PoolSpec(DEFAULT_POOL, (ModelGlob("*"),), tuple(offers), policy, hold_s)
