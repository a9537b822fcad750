"""Decide whether the settings may have the records of a store: offers, by their names.

An instance on record costs money until it is stopped, which needs its backend. So the
settings may not lose an offer, or a slot, that has one.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from ollama_proxy.base.errors import StartupError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.slot_keys import SlotKey, parse_slot_key


@dataclass(frozen=True, slots=True)
class Claim:
    """Notes what the instances of an offer are.

    ``costs``: they outlive the proxy, and cost money. ``spec``: the backend's settings
    as JSON, without secrets, with which they can be found when the offer has gone.
    """

    offer: str
    backend: str
    costs: bool = True
    spec: bytes = b"{}"


def check_claims(
    kept: Mapping[str, Claim],
    launches: Mapping[str, LaunchId],
    claims: Collection[Claim],
    slots: Collection[str],
) -> list[str]:
    """Return the slots whose launch cost nothing and can be forgotten.

    ``kept``: what was noted of the offers before. ``launches``: the launches on record,
    by slot. ``claims`` and ``slots``: what the settings have. Raises `StartupError` for
    a launch that the settings lose: it would be forgotten and never stopped.
    """
    lost: list[str] = []
    told: list[str] = []
    now = {claim.offer: claim for claim in claims}
    for slot, launch_id in sorted(launches.items()):
        key = parse_slot_key(slot)
        before = kept.get(key.offer) if key is not None else None
        why = _why_lost(slot, key, before, now, slots)
        if why is None:
            continue
        if before is not None and not before.costs:
            lost.append(slot)
        else:
            told.append(_refusal(launch_id, why))
    if told:
        raise StartupError("\n".join(told))
    return lost


def _why_lost(
    slot: str,
    key: SlotKey | None,
    before: Claim | None,
    now: Mapping[str, Claim],
    slots: Collection[str],
) -> str | None:
    """Return what of a slot the settings no longer have; None if they have it all."""
    if key is None:
        return f"is on record in {slot!r}, which no version of ours wrote"
    where = "" if before is None else f" of the backend {before.backend!r}"
    if key.offer not in now:
        return (
            f"is on record for the offer {key.offer!r}{where}, which the settings no"
            " longer have"
        )
    after = now[key.offer].backend
    if before is not None and before.backend != after:
        return (
            f"is on record for the offer {key.offer!r}{where}, which has the backend"
            f" {after!r} in the settings now"
        )
    if slot not in slots:
        return (
            f"is on record as number {key.index + 1} of the pool {key.pool!r} for the"
            f" offer {key.offer!r}, which the settings no longer have"
        )
    return None


def _refusal(launch_id: LaunchId, why: str) -> str:
    return (
        f"launch {launch_id} {why}; run `ollama-proxy stop --launch {launch_id}` to end"
        " it, or put the settings back"
    )


def unnamed_slots(slots: Collection[str], offer: str) -> Iterator[tuple[str, str]]:
    """Yield the slots of an earlier version that name no offer, and their new names."""
    for slot in slots:
        key = parse_slot_key(slot)
        if key is not None and not key.offer:
            yield slot, str(SlotKey(key.pool, key.index, offer))
