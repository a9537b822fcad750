"""Register OVHcloud AI Deploy as a backend."""

from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.fleet.backend_plugin import BackendPlugin, opened_by


def _resource_names(settings: OvhSettings) -> dict[str, str]:
    """Return the app's name, by which it is found again."""
    name = settings.app_name
    return {f"app name {name!r}": "app_name"} if name else {}


PLUGIN = BackendPlugin(
    "ovh",
    OvhSettings,
    opened_by("ollama_proxy.backends.ovh.opening", extra="ovh", libraries=["dxf"]),
    resource_names=_resource_names,
)
