"""Register Exoscale as a backend."""

from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.fleet.backend_plugin import BackendPlugin, Choice, opened_by


def _faults(settings: ExoscaleSettings, _choice: Choice) -> list[str]:
    """Name a key that lacks both halves; one without the other is a fault of pairs."""
    if settings.api_key or settings.api_secret:
        return []
    return [
        "EXOSCALE_API_KEY, EXOSCALE_API_SECRET: the backend 'exoscale' needs both;"
        " make a key in the portal under IAM"
    ]


PLUGIN = BackendPlugin(
    "exoscale",
    ExoscaleSettings,
    opened_by("ollama_proxy.backends.exoscale.opening", extra="exoscale"),
    faults=_faults,
)
