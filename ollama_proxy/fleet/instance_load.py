"""Measure what an instance works at, so that requests go where they begin soonest."""

from collections.abc import Hashable
from dataclasses import dataclass

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.demand import DemandMeter
from ollama_proxy.core.health import Health
from ollama_proxy.core.instance_choice import Candidate
from ollama_proxy.core.ollama.model_names import full_model_name

_MOST_LOADED = 3
"""How many models are taken to be in memory: Ollama's own limit for one GPU."""

_LOADED_FOR_S = 300.0
"""How long a model stays in memory without work: Ollama's ``OLLAMA_KEEP_ALIVE``."""

_LOAD_S = 10.0
_NEWEST_WEIGHS = 0.3


@dataclass(slots=True)
class _Work:
    """Holds when a request began, and whether its model had to be loaded first."""

    began_at: float
    model: str | None
    loads: bool


class InstanceLoad:
    """Holds the `Candidate` of one instance and keeps it up to date.

    The models in its memory are assumed to be those that it served recently: no request
    asks the instance itself.
    """

    def __init__(
        self,
        name: str,
        *,
        slots: int | None,
        is_external: bool,
        meter: DemandMeter,
        clock: Clock,
    ) -> None:
        self._meter = meter
        self._clock = clock
        self._is_external = is_external
        self._health = Health()
        self._loaded: dict[str, float] = {}
        self._work: dict[Hashable, _Work] = {}
        self.candidate = Candidate(
            name,
            slots=slots or 0,
            load_s=_LOAD_S,
            is_external=is_external,
        )

    def begin_anew(self, model: str | None) -> None:
        """Begin with another instance; ``model``: what its launch has loaded."""
        self._loaded.clear()
        self._work.clear()
        self._health = self._health.good(self._clock.now())
        if not self._is_external:
            self.candidate.failures = 0.0
        self.candidate.in_flight = 0
        self.candidate.loaded = None if model is None else {full_model_name(model): 0.0}

    def begin(self, request: Hashable, model: str | None) -> None:
        """Take in that the instance gets a request."""
        self.candidate.in_flight += 1
        self.candidate.service_s = self._meter.service_s
        now = self._clock.now()
        name = None if model is None else full_model_name(model)
        loads = name is not None and name not in self._kept(now)
        self._work[request] = _Work(now, name, loads)

    def note_answer(self, request: Hashable) -> None:
        """Take in that the answer begins: the model is in memory by now."""
        work, now = self._work.get(request), self._clock.now()
        if work is not None:
            self._health = self._health.good(now)
        if work is None or work.model is None:
            return
        if work.loads:
            change_s = now - work.began_at - self.candidate.load_s
            self.candidate.load_s += _NEWEST_WEIGHS * change_s
            work.loads = False
        self._remember(work.model, now)

    def end(self, request: Hashable, *, used: bool) -> None:
        """Take in that a request has ended; ``used``: it was answered."""
        work = self._work.pop(request, None)
        if work is None:  # of an instance before
            return
        self.candidate.in_flight -= 1
        if used:
            now = self._clock.now()
            self._meter.served(now - work.began_at)
            if work.model is not None:
                self._remember(work.model, now)

    def load_limit_s(self, _model: str | None) -> float:
        """Return how much longer an answer may take whose model has to be loaded."""
        return 0.0

    def note_failure(self) -> None:
        """Take in that the instance failed a request, or was lost."""
        now = self._clock.now()
        self._health = self._health.failed(now)
        self.candidate.failed(now)
        self.weigh(now)

    def weigh(self, now: float) -> None:
        """Prefer a server of others once it has been good for half a minute."""
        if self._is_external:
            self.candidate.is_external = self._health.is_steady(now)

    def _remember(self, model: str, now: float) -> None:
        """Remember that a model is in memory; the one used longest ago may not be."""
        self._loaded.pop(model, None)
        self._loaded[model] = now
        while len(self._loaded) > _MOST_LOADED:
            del self._loaded[next(iter(self._loaded))]
        self.candidate.loaded = self._loaded

    def _kept(self, now: float) -> dict[str, float]:
        """Return the models that are in memory still."""
        for model, used_at in list(self._loaded.items()):
            if now - used_at > _LOADED_FOR_S:
                del self._loaded[model]
        return self._loaded
