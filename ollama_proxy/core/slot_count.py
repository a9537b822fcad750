"""Decide how many requests an instance serves at a time: its slots. Pure.

Ollama serves as many requests to one model at a time as ``OLLAMA_NUM_PARALLEL`` says,
by default one (``envconfig/config.go``, v0.33.0-rc2), and queues the others even if
another instance is free.
"""

from collections.abc import Mapping
from typing import Final

PARALLEL: Final = "OLLAMA_NUM_PARALLEL"
_OF_SEVERAL = 4
"""The default where several instances share the load."""


def environment_of_instances(
    given: Mapping[str, str],
    *,
    slots: int | None,
    max_instances: int,
    inherited: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the variables of Ollama for our instances, besides our own variables.

    ``given`` and ``slots``: from the settings of an offer. ``inherited``: variables
    that its instances have anyway. Nothing is added for a pool of one instance.
    """
    if PARALLEL in given or PARALLEL in (inherited or {}):
        return dict(given)
    if slots is None and max_instances <= 1:
        return dict(given)
    return {**given, PARALLEL: str(slots or _OF_SEVERAL)}


def slots_of(
    stated: int | None,
    *,
    offers: int,
    max_instances: int,
    environment: Mapping[str, str] | None,
) -> int | None:
    """Return how many requests an instance of an offer serves at once; None: no limit.

    ``offers`` and ``max_instances``: of its pool. ``environment``: variables of its
    instances; None for a server that somebody else set up, where they are unknown. A
    pool of one instance has no limit: there is no other instance to use.
    """
    if stated is not None:
        return stated
    if offers <= 1 and max_instances <= 1:
        return None
    text = (environment or {}).get(PARALLEL, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else 1
