"""Choose the instance that answers a request first."""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

_FAILURE_S = 5.0
_FORGOTTEN_AFTER_S = 60.0


@dataclass(slots=True)
class Candidate:
    """Holds the known facts about a ready instance.

    - ``slots``: how many requests it serves at a time; 0: no limit.
    - ``loaded``: the models in its memory, by normalised name; None: unknown, so no
      load is counted.
    - ``load_s``: how long it takes to load another model. ``service_s``: how long a
      request occupies a slot.
    - ``failures``: recent failures, weighted at ``failed_at``; see `failed`.
    - ``is_external``: somebody else runs it, so it costs nothing more.

    In a pool with nodes, for `ollama_proxy.core.node_choice`:

    - ``foreign``: how many requests of others it has. ``is_hot``: something else keeps
      its processors busy.
    - ``pace_s``: how long a request takes up a slot, by the model where measured.
    - ``turn``: says which of several equal ones is next: the one with the smallest.
    """

    name: str
    slots: int = 0
    in_flight: int = 0
    loaded: Container[str] | None = None
    load_s: float = 0.0
    service_s: float = 20.0
    failures: float = 0.0
    failed_at: float = 0.0
    is_external: bool = False
    foreign: int = 0
    is_hot: bool = False
    pace_s: Mapping[str, float] | None = None
    turn: float = 0.0

    def failed(self, now: float) -> None:
        """Take in that a request failed; after a minute it weighs a third as much."""
        self.failures = 1.0 + _decayed(self.failures, now - self.failed_at)
        self.failed_at = now


def _decayed(failures: float, passed_s: float) -> float:
    return failures * math.exp(-max(passed_s, 0.0) / _FORGOTTEN_AFTER_S)


def cost_s(candidate: Candidate, model: str | None, now: float) -> float:
    """Return the estimated seconds until the first token.

    The load of the model unless it is in memory, the time in the queue if all slots are
    occupied, and 5 seconds for each recent failure.
    """
    seconds = 0.0
    loaded = candidate.loaded
    if loaded is not None and model is not None and model not in loaded:
        seconds = candidate.load_s
    slots = candidate.slots
    if slots and candidate.in_flight >= slots:
        seconds += (candidate.in_flight + 1 - slots) / slots * candidate.service_s
    if candidate.failures:
        seconds += failure_s(candidate, now)
    return seconds


def failure_s(candidate: Candidate, now: float) -> float:
    """Return the seconds that recent failures count for: 5 each, less in time."""
    return _FAILURE_S * _decayed(candidate.failures, now - candidate.failed_at)


def choose(
    candidates: Sequence[Candidate],
    model: str | None,
    now: float,
    *,
    is_packing: bool = False,
    has_external: bool = True,
    cursor: int = 0,
) -> Candidate | None:
    """Return the instance for a request for a model; None if there is none.

    An external server comes first while it has a free slot. Then the lowest cost
    counts; costs within the same tenth of a second are equal. Among equals, the one
    with the fewest requests in flight is chosen; while ``is_packing``, the one with the
    most that has a free slot. ``cursor`` grows with each request: of candidates that
    are still equal, it picks the next one from there on. ``has_external``: some of them
    may be external.
    """
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        return None
    first = cursor % len(candidates)
    best = candidates[first]
    best_rank: tuple[bool, float, float] = (True, math.inf, math.inf)
    for one in (*candidates[first:], *candidates[:first]):
        in_flight, slots, loaded = one.in_flight, one.slots, one.loaded
        is_free = not slots or in_flight < slots
        is_resident = loaded is None or model is None or model in loaded
        # Most instances cost nothing: asking each of 50 would take 10 us longer.
        is_costless = is_free and is_resident and not one.failures
        rank = (
            not (one.is_external and is_free),
            0.0 if is_costless else 10.0 * cost_s(one, model, now) // 1.0,
            -in_flight if is_packing and is_free else in_flight,
        )
        if rank < best_rank:
            best, best_rank = one, rank
            is_idle = is_costless and not in_flight and not is_packing
            if is_idle and (one.is_external or not has_external):
                break  # none can be better
    return best
