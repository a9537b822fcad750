"""Choose where a request begins soonest, among machines of different speeds. Pure.

For pools with nodes, which differ in more than instances of one cloud do: in speed, in
the work that others give them, in the models that they have. Up to 8 candidates are all
looked at. Of more, two are drawn from the best group: several proxies that all take the
one best by beats of half a minute ago would send a herd there.
"""

from collections.abc import Callable, Sequence
from typing import Final

from ollama_proxy.core.instance_choice import Candidate, failure_s

LOOKED_AT: Final = 8
"""Up to how many candidates are all looked at."""

_DRAWS: Final = 8
_HOT_CPU: Final = 0.9

Suits = Callable[[Candidate], bool]
"""Tells whether a candidate will do for a request at all."""

Draw = Callable[[], float]
"""Draws a number from 0 to 1, without 1."""


def is_hot(*, cpu: float, has_gpu: bool, busy: int) -> bool:
    """Tell whether something else than models works a machine without GPU hard.

    ``cpu``: the share in use. ``busy``: how many requests its Ollama had then: with
    one, such a machine is always busy, and the request is counted already.
    """
    return cpu > _HOT_CPU and not has_gpu and not busy


def seconds_to_begin(one: Candidate, model: str | None, now: float) -> float:
    """Return the estimated seconds until the first token, on one of many machines.

    - the load of the model, if it is not in memory; if the machine works, one request
      more, whose model may have to leave the memory first;
    - the time in the queue, of our requests and of others, at the machine's own pace;
    - one request more on a machine without GPU whose processors are busy otherwise;
    - 5 seconds for each recent failure.
    """
    busy, slots = one.in_flight + one.foreign, one.slots
    requests = 1.0 if one.is_hot else 0.0
    seconds = 0.0
    if not _is_resident(one, model):
        seconds = one.load_s
        requests += busy > 0
    if slots and busy >= slots:
        requests += (busy + 1 - slots) / slots
    if requests:
        seconds += requests * pace_s(one, model)
    if one.failures:
        seconds += failure_s(one, now)
    return seconds


def pace_s(one: Candidate, model: str | None) -> float:
    """Return how long a request for a model takes up a slot of a machine."""
    measured = one.pace_s.get(model) if model is not None and one.pace_s else None
    return one.service_s if measured is None else measured


def _is_resident(one: Candidate, model: str | None) -> bool:
    return one.loaded is None or model is None or model in one.loaded


def choose_of_many(
    candidates: Sequence[Candidate],
    *,
    model: str | None,
    now: float,
    suits: Suits,
    draw: Draw,
    is_packing: bool = False,
) -> Candidate | None:
    """Return the candidate for a request for a model; None if none suits it.

    A server of others comes first while it has a free slot, then the lowest cost
    counts, in tenths of a second. Among equals the one with the smallest part of its
    slots in use is chosen, then the one whose turn it is: see `take_turn`.
    """
    if len(candidates) > LOOKED_AT:
        drawn = _two_of_the_best(candidates, model, suits, draw)
    else:
        drawn = [one for one in candidates if suits(one)]
    if len(drawn) > 1:
        return min(drawn, key=lambda one: _rank(one, model, now, packs=is_packing))
    return drawn[0] if drawn else None


def is_preferred(one: Candidate) -> bool:
    """Tell whether a machine comes before every instance of ours: it has room."""
    return one.is_external and _is_free(one)


def _two_of_the_best(
    candidates: Sequence[Candidate],
    model: str | None,
    suits: Suits,
    draw: Draw,
) -> Sequence[Candidate]:
    """Return two at random of those with the model loaded and a slot free.

    If there are none: of those with a slot free; else of all. All are returned if no
    more than 8 suit. A few draws find two in most cases, whatever the number is.
    """
    number = len(candidates)
    found: Candidate | None = None
    for _ in range(_DRAWS):
        one = candidates[int(draw() * number)]
        if one is found or not (_is_free(one) and _is_resident(one, model)):
            continue
        if suits(one):
            if found is not None:
                return (found, one)
            found = one
    suiting = [one for one in candidates if suits(one)]
    if len(suiting) <= LOOKED_AT:
        return suiting
    free = [one for one in suiting if _is_free(one)]
    loaded = [one for one in free if _is_resident(one, model)]
    best = loaded or free or suiting
    if len(best) == 1:
        return best
    first, shift = int(draw() * len(best)), int(draw() * (len(best) - 1))
    return best[first], best[(first + 1 + shift) % len(best)]


def _is_free(one: Candidate) -> bool:
    return not one.slots or one.in_flight + one.foreign < one.slots


def _rank(
    one: Candidate, model: str | None, now: float, *, packs: bool
) -> tuple[bool, float, float, float]:
    used = (one.in_flight + one.foreign) / (one.slots or 1)
    return (
        not is_preferred(one),
        10.0 * seconds_to_begin(one, model, now) // 1.0,
        -used if packs and not one.is_external and _is_free(one) else used,
        one.turn,
    )


def take_turn(chosen: Candidate, model: str | None, begun_at: float) -> float:
    """Give the turn on after a choice; return when the turn of the chosen one began.

    Candidates of equal cost get requests in proportion to their pace: each choice adds
    the time that a request takes there to its turn, and the smallest is next.
    ``begun_at``: what the choice before returned. One that had no requests for long
    goes on from there, so that it does not get all of them.
    """
    began_at = max(chosen.turn, begun_at)
    chosen.turn = began_at + pace_s(chosen, model) / (chosen.slots or 1)
    return began_at
