"""Hold the pools in their order."""

from collections.abc import Iterator, Sequence

from ollama_proxy.serving.pool_services import PoolServices


class PoolMap:
    """Holds what belongs to each pool, in the order of the settings."""

    def __init__(self, pools: Sequence[PoolServices]) -> None:
        self._pools = {pool.name: pool for pool in pools}
        self.first = pools[0]

    def __iter__(self) -> Iterator[PoolServices]:
        return iter(self._pools.values())

    def __len__(self) -> int:
        return len(self._pools)

    def __getitem__(self, name: str) -> PoolServices:
        return self._pools[name]
