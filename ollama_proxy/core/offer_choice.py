"""Choose the offer for the next launch of a pool, and say why others are skipped.

Pure. Offers are tried in order of preference. One that had no room, or failed, is
skipped for a while; one that can't work is off until a person acts. Facts about an
offer apply to all slots of its pool. Moments are those of `Clock.now`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ollama_proxy.core.lifecycle.deadlines import is_given_up, no_room_pause_s
from ollama_proxy.core.lifecycle.launch_limit import (
    WITHOUT_ROOM,
    is_locked_out,
    unserved,
)
from ollama_proxy.core.lifecycle.record import Policy, Record, State

_TRIES, _TRIED_S = 3, 30.0
_FORGOTTEN_AFTER_S = 900.0
_RUNNING = frozenset({State.STARTING, State.READY})
_MODELS_FAULT = "pull"


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Remembers that an offer had no room, so often in a row, and until when."""

    refusals: int
    until: float
    message: str


def no_room(before: NoRoom | None, message: str, now: float) -> NoRoom:
    """Return the note on an offer without room: skipped for 1 min, then up to 15 min.

    Two slots that try at the same time get the same answer, which counts once.
    """
    if before is not None and now < before.until:
        return before
    is_again = before is not None and now - before.until < _FORGOTTEN_AFTER_S
    refusals = before.refusals + 1 if before is not None and is_again else 1
    return NoRoom(refusals, now + no_room_pause_s(refusals), message)


def gives_way(tries: int, passed_s: float) -> bool:
    """Tell whether a start that its cloud did not take is left to the next offer."""
    return tries >= _TRIES or passed_s >= _TRIED_S


@dataclass(frozen=True, slots=True)
class OfferFacts:
    """Holds what is known of one offer: its records in all slots of the pool."""

    name: str
    records: tuple[Record, ...]
    policy: Policy
    no_room: NoRoom | None = None


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Says why an offer is skipped, and ``until`` when; None: unknown.

    ``is_off``: it can't work with its settings. ``ends_waits``: no launch will follow
    by itself, so no request waits for one.
    """

    message: str
    until: float | None = None
    is_off: bool = False
    ends_waits: bool = False


def obstacle(offer: OfferFacts, now: float) -> Obstacle | None:
    """Return why an offer is not asked at this moment; None if it may be."""
    for record in offer.records:
        if record.lockout is not None and is_locked_out(record, now):
            words = [record.fault.message] if record.fault is not None else []
            message = "; ".join([*words, record.lockout.message])
            return Obstacle(message, record.lockout.until, is_off=True, ends_waits=True)
    found = [_pause(record, offer.policy, now) for record in offer.records]
    if offer.no_room is not None and now < offer.no_room.until:
        found.append(Obstacle(offer.no_room.message, offer.no_room.until))
    last = [one for one in found if one is not None]
    return max(last, key=_end) if last else None


def _pause(record: Record, policy: Policy, now: float) -> Obstacle | None:
    """Return the pause after a failed launch of one slot, if it is not over."""
    is_failing = record.state is State.STOPPING and record.failed
    is_pausing = record.state is State.COOLDOWN and now < record.retry_at
    if not (is_failing or is_pausing):
        return None
    fault = record.fault
    is_passing = policy.gives_way and fault is not None and fault.reason in WITHOUT_ROOM
    if is_failing and is_passing:
        return None  # its pause has begun already: see `no_room`
    message = fault.message if fault is not None else "the last launch failed"
    until = record.retry_at if is_pausing else None
    ends_waits = is_given_up(record, policy) and not is_passing
    return Obstacle(message, until, ends_waits=ends_waits)


def _end(one: Obstacle) -> float:
    return float("inf") if one.until is None else one.until


def models_obstacle(offers: Sequence[OfferFacts], now: float) -> Obstacle | None:
    """Return why no offer would do: a model of the pool that no registry has."""
    for record in (record for offer in offers for record in offer.records):
        fault = record.fault
        is_models = fault is not None and fault.reason == _MODELS_FAULT and fault.final
        if is_models and is_locked_out(record, now):
            assert fault is not None  # noqa: S101 - is_models says so
            until = record.lockout.until if record.lockout is not None else None
            return Obstacle(fault.message, until, is_off=True, ends_waits=True)
    return None


def obstacles(offers: Sequence[OfferFacts], now: float) -> list[Obstacle | None]:
    """Return why each offer is not asked at this moment; None for one that may be."""
    if (models := models_obstacle(offers, now)) is not None:
        return [models] * len(offers)
    return [obstacle(offer, now) for offer in offers]


def may_start_more(offers: Sequence[OfferFacts], reserving: int, now: float) -> bool:
    """Tell whether one more launch beside those under way keeps the pool's limit.

    The limit of launches that serve no request applies to all offers and slots
    together. A launch under way, or being written to disk (``reserving``), counts until
    its cloud has answered. A single launch is left to lockouts.
    """
    limit = _limit(offers)
    records = [record for offer in offers for record in offer.records]
    under_way = reserving + sum(
        record.state is State.STARTING and not record.accepted for record in records
    )
    runs = any(record.state in _RUNNING for record in records)
    if limit is None or not (under_way or runs):
        return True
    return unserved(records, now) + under_way < limit


def is_limit_reached(offers: Sequence[OfferFacts], now: float) -> bool:
    """Tell whether the pool has made as many launches in vain as it may in an hour."""
    limit = _limit(offers)
    records = [record for offer in offers for record in offer.records]
    return limit is not None and unserved(records, now) >= limit


def _limit(offers: Sequence[OfferFacts]) -> int | None:
    """Return the limit of the offers whose launches cost something, if one does."""
    limits = [one.policy.launch_limit for one in offers]
    return min((limit for limit in limits if limit is not None), default=None)
