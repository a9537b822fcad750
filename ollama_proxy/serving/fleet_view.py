"""Tell `decide` what instances, lists and settings say at this moment."""

from collections.abc import Callable, Collection

from ollama_proxy.core.ollama.request_fields import Need
from ollama_proxy.core.request_facts import PoolChoices
from ollama_proxy.fleet.pool import Pool
from ollama_proxy.serving.idle_ignores import IdleIgnores
from ollama_proxy.serving.unknown_models import UnknownModels


class FleetView:
    """Reads the fleet's state on demand and changes nothing: a `Fleet`.

    ``spared``: `Need.LOAD` and `Need.CLOUD` if such requests wake no instance.
    ``last_version`` returns the version of the Ollama that would serve the request.
    """

    read_limit_s = 5.0

    def __init__(
        self,
        name: str,
        pool: Pool,
        pools: PoolChoices,
        unknown: UnknownModels,
        ignores: IdleIgnores,
        spared: Collection[Need],
        last_version: Callable[[], str],
    ) -> None:
        self.spared = frozenset(spared)
        self.reads_bodies = ignores.reads_bodies
        self.ignores_some = bool(ignores)
        self.ignores = ignores.match
        self.fate = unknown.judge
        self.next_look_s = unknown.next_look_s
        self.name = name
        self.pools = pools
        self._pool = pool
        self._last_version = last_version

    @property
    def is_ready(self) -> bool:
        """Tell whether an instance serves."""
        return self._pool.is_ready

    @property
    def has_several(self) -> bool:
        """Tell whether several instances make up its lists; nodes always do."""
        return self._pool.nodes is not None or self._pool.ready_count > 1

    @property
    def version(self) -> str:
        """Return the version of the Ollama that would be asked; "" if unknown."""
        return self._last_version()
