"""A store that a test closes and opens again."""

from collections.abc import Callable
from typing import Final

from ollama_proxy.store.ports import Store

LINES: Final = 5
"""How many lines of the journal the stores of the contracts keep."""


class Rig:
    """One store, closed and opened again as often as a test likes."""

    def __init__(self, opened: Callable[[], Store]) -> None:
        self._opened = opened
        self.store = opened()

    def again(self) -> Store:
        """Return what a later process finds."""
        self.store.close()
        self.store = self._opened()
        return self.store
