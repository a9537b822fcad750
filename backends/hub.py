"""Have machines that register themselves as the instances of an offer.

The hub knows them, and the proxy neither starts nor stops any of them.
"""

from collections.abc import Collection
from typing import Annotated

from pydantic import BeforeValidator

from ollama_proxy.base.fields import BackendSettings, setting
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.nodes.labels import Labels, parse_labels
from ollama_proxy.fleet.backend import BackendContext, Observation, Phase, Traits
from ollama_proxy.fleet.backend_plugin import BackendPlugin

NAME = "hub"


class HubOfferSettings(BackendSettings):
    """Holds which nodes an offer has."""

    labels: Annotated[Labels, BeforeValidator(parse_labels)] = setting(
        "",
        "OLLAMA_PROXY_HUB_LABELS",
        text="labels that a node of the hub needs to be used, with globs:"
        ' `gpu=a100,site=home*`, or a table `{ gpu = "a100" }`',
        shown="–",
    )


class HubBackend:
    """Starts nothing: a node is an instance as long as its agent beats."""

    def __init__(self, labels: Labels) -> None:
        self.traits = Traits(
            externally_managed=True,
            persistent_models=True,
            models_place=NAME,
            node_labels=labels,
        )

    async def start(self, launch_id: LaunchId) -> None:
        """Do nothing: machines register themselves."""

    async def inspect(self, launch_id: LaunchId) -> Observation:  # noqa: ARG002 - the port
        """Return that there is no such instance."""
        return Observation(Phase.GONE)

    async def stop(self, launch_id: LaunchId) -> None:
        """Do nothing: the machines stay as they are."""

    async def owned(self) -> Collection[LaunchId]:
        """Return nothing: no machine is ours."""
        return frozenset()

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""


def open_backend(context: BackendContext) -> HubBackend:
    """Build the backend from its settings."""
    return HubBackend(context.settings_of(HubOfferSettings).labels)


PLUGIN = BackendPlugin(
    NAME,
    HubOfferSettings,
    open_backend,
    has_table=False,
    makes_instances=False,
)
