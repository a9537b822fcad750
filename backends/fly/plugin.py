"""Register Fly Machines as a backend."""

from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.fleet.backend_plugin import BackendPlugin, Choice, opened_by
from ollama_proxy.fleet.memory_estimate import needed_gb

_HOPELESS = 1.3  # tolerance for errors of the estimate


def _faults(settings: FlySettings, choice: Choice) -> list[str]:
    """Return the faults, with models that can't fit into the machine's memory."""
    memory_gb = settings.guest.memory_mb / 1024.0
    faults = settings.faults()
    for model in choice.models:
        needed = needed_gb(model, None)
        if needed is not None and needed > memory_gb * _HOPELESS:
            faults.append(
                f"OLLAMA_MODEL: {model!r} wants about {needed:.1f} GB of memory, and"
                f" {settings.size} has {memory_gb:.1f}; choose a larger FLY_VM_SIZE"
            )
    return faults


def _resource_names(settings: FlySettings) -> dict[str, str]:
    """Return the app: machines have their names in it, and volumes."""
    return {f"app {settings.app!r}": "app"} if settings.app else {}


PLUGIN = BackendPlugin(
    "fly",
    FlySettings,
    opened_by("ollama_proxy.backends.fly.opening", extra="fly", libraries=["dxf"]),
    faults=_faults,
    resource_names=_resource_names,
)
