"""Hold the pools in their order, and know which of them serves what."""

from collections.abc import Collection, Iterator, Sequence

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.nodes.hub_routes import hub_route
from ollama_proxy.core.ollama.model_globs import ModelGroups
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.ollama.routes import ColdAnswer, Kind, Route
from ollama_proxy.serving.pool_services import PoolServices


class PoolMap:
    """Holds what belongs to each pool: `PoolChoices`.

    ``groups`` says which models are whose; ``uploads`` is the pool that takes files.
    The first pool that is added is the first in the settings. ``leave_no_choice``: one
    instance, of one pool, serves every request. ``is_hub``: the hub's routes are there.
    """

    def __init__(
        self, groups: ModelGroups, uploads: str, *, is_hub: bool = False
    ) -> None:
        self._is_hub = is_hub
        self.uploads = uploads
        self.of_model = groups.group_of
        self.names: Sequence[str] = ()
        self.leave_no_choice = True
        self.first: PoolServices
        self._pools: dict[str, PoolServices] = {}

    def add(self, services: PoolServices) -> None:
        """Add a pool; what it is built from may know this map already."""
        if not self._pools:
            self.first = services
        self._pools[services.name] = services
        self.names = tuple(self._pools)
        self.leave_no_choice = not services.places.matters and len(self.names) == 1

    def __iter__(self) -> Iterator[PoolServices]:
        return iter(self._pools.values())

    def __getitem__(self, name: str) -> PoolServices:
        return self._pools[name]

    def awake(self) -> str | None:
        """Return the first pool that has a ready instance."""
        return next((one.name for one in self if one.pool.is_ready), None)

    def resolve(self, route: Route, method: str, path: str) -> Route:
        """Return what a request is, now that the routes besides Ollama's are known."""
        if route.kind is not Kind.UNKNOWN:
            return route
        if self._is_hub and (ours := hub_route(method, path)) is not None:
            return ours
        for services in self:
            resolved = services.extra_routes.resolve(route, method, path)
            if resolved.asleep is ColdAnswer.WAKE:
                return resolved
        return route

    def of_route(self, method: str, path: str) -> str | None:
        """Return the pool that answered a route outside of Ollama's table."""
        answered = (one for one in self if one.extra_routes.has_learnt(method, path))
        return next((one.name for one in answered), None)

    def instance_of(self, pool: str, model: str) -> LaunchId | None:
        """Return the ready instance that alone has a model.

        Not of one that beats list: these say where it is.
        """
        services = self._pools[pool]
        nodes = services.pool.nodes
        if nodes is not None and nodes.is_known(full_model_name(model)):
            return None
        return services.places.instance_of(model)

    def instance_with(self, pool: str, digests: Collection[str]) -> LaunchId | None:
        """Return the ready instance that files go to, or that has all of these."""
        return self._pools[pool].places.instance_with(digests)
