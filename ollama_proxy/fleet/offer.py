"""Describe what a slot launches: a backend, its models, and the policy for it."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from ollama_proxy.core.lifecycle.record import Policy
from ollama_proxy.fleet.backend import Backend
from ollama_proxy.fleet.fingerprint import fingerprint


@dataclass(frozen=True, slots=True)
class Offer:
    """Names a backend, and the models that its instances must have.

    ``spec``: the settings from which its instances are made. ``secrets``: removed from
    every message and report of the backend.
    ``backend_name``: what the settings call the backend. ``slots``: how many requests
    an instance gets at a time, None: any number. ``price_per_hour`` and ``currency``:
    as the settings say, None and empty if they don't.
    """

    name: str
    backend: Backend
    models: Sequence[str] = ()
    spec: object = None
    secrets: Collection[str] = field(default=(), repr=False)
    backend_name: str = ""
    slots: int | None = None
    price_per_hour: float | None = None
    currency: str = ""

    @property
    def is_external(self) -> bool:
        """Tell whether somebody else manages the server, so it is not ours to start."""
        return self.backend.traits.externally_managed


def policy_for(offer: Offer, policy: Policy) -> Policy:
    """Return the policy for the instances of an offer, adapted to its traits."""
    traits = offer.backend.traits
    spec = [traits.spec, offer.spec]
    policy = replace(
        policy,
        fingerprint=fingerprint(offer.name, offer.models, spec),
        ends_with_proxy=traits.child_process or traits.externally_managed,
    )
    if traits.is_free:
        policy = replace(policy, launch_limit=None)
    if traits.externally_managed:
        policy = replace(
            policy,
            idle_timeout_s=math.inf,
            max_lifetime_s=math.inf,
            final_s=0.0,
            is_always_on=True,
        )
    return policy
