"""An instance in this process that costs money, as one in a cloud does."""

from dataclasses import replace
from typing import Any

from ollama_proxy.fleet.backend import Prices
from tests.fakes.instance import InProcessBackend


class PricedBackend(InProcessBackend):
    """Starts a simulator per launch; ``per_hour`` is its price, None: unknown."""

    def __init__(self, per_hour: float | None = 3.6, **how: Any) -> None:
        super().__init__(**how)
        self.traits = replace(self.traits, child_process=False)
        self.per_hour = per_hour

    @property
    def prices(self) -> Prices:
        return Prices(self.per_hour)
