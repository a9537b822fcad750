"""Know which models a pool with nodes has, and on what kind of instance.

A model is known if some node has it, in whatever state, or an offer of ours is known to
have it or pulls it. Of any other it is certain that no instance would answer.
"""

from typing import Protocol

from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.fleet.house_leasing import HouseLeasing
from ollama_proxy.fleet.leased_instance import LeasedInstance


class OtherModels(Protocol):
    """Knows the models of the instances that are no nodes."""

    def has_own(self, full_name: str) -> bool:
        """Tell whether an offer of ours is known to have a model, or pulls it."""

    def are_others_ready(self) -> bool:
        """Tell whether a server of others is ready."""

    def is_lacking(self, instance: LeasedInstance, full_name: str) -> bool:
        """Tell whether the last list of an instance lacks a model."""

    def is_with_others(self, full_name: str) -> bool:
        """Tell whether a ready server of others has a model, or may have it."""


class HouseModels:
    """Answers for the nodes of a pool, and for its other instances.

    ``others``: None if there are nodes only.
    """

    def __init__(self, leasing: HouseLeasing, others: OtherModels | None) -> None:
        self._leasing = leasing
        self._others = others
        leasing.lacks = self.lacks

    def knows(self, full_name: str) -> bool:
        """Tell whether some instance has a model, or will have it once it is there."""
        others = self._others
        return self._leasing.is_known(full_name) or (
            others is not None
            and (others.has_own(full_name) or others.is_with_others(full_name))
        )

    def spills(self, model: str, plain: bool) -> bool:  # noqa: FBT001 - as called
        """Tell whether no node and no server of others has a model of an offer of ours.

        If a request is not ``plain``, nodes that generate text only don't have it. One
        that has it and is away for a moment will do: its requests wait as for a
        server that is down. So they do while nothing is ready: what the next node has
        is not known then.
        """
        name, others = full_model_name(model), self._others
        if others is None or self._leasing.is_known(name, plain=plain):
            return False
        if not (self._leasing.has_ready_node(None) or others.are_others_ready()):
            return False
        return not others.is_with_others(name) and others.has_own(name)

    def helps(self, model: str) -> bool:
        """Tell whether an instance of ours may have a model that requests wait for.

        If nodes have it, and no offer of ours is known to, a launch would be in vain.
        Where there are nodes only, none can be.
        """
        name, others = full_model_name(model), self._others
        if others is None:
            return False
        return others.has_own(name) or not self._leasing.is_known(name)

    def lacks(self, instance: LeasedInstance, full_name: str) -> bool:
        """Tell whether an instance is known to lack a model that another has.

        A model that none has is answered for by whichever instance is ready.
        """
        others = self._others
        if others is None or not others.is_lacking(instance, full_name):
            return False
        return self.knows(full_name)
