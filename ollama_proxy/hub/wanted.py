"""Say which models a node should pull, from what all nodes have."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.nodes.beat import Beat
from ollama_proxy.core.nodes.wanted import WantedRule, sizes_of, wanted_models

LOOK_EVERY_S: Final = 5.0
"""How old may be what is known of sizes: 1 000 nodes with 20 models take 5 ms."""


class Wanted:
    """Says which models each node should pull; a `ports.WantedModels`.

    ``beats`` returns the last beat of every node.
    """

    def __init__(
        self, rule: WantedRule, beats: Callable[[], Iterable[Beat]], clock: Clock
    ) -> None:
        self._rule, self._beats, self._clock = rule, beats, clock
        self._sizes: Mapping[str, int] = {}
        self._known_at: float | None = None

    def wanted_by(self, beat: Beat) -> Sequence[str]:
        """Return the models that a node should have, lacks, and has room for."""
        if self._rule.is_none:
            return ()
        now = self._clock.now()
        if self._known_at is None or now - self._known_at >= LOOK_EVERY_S:
            self._sizes, self._known_at = sizes_of(self._beats()), now
        return wanted_models(self._rule, self._sizes, beat)
