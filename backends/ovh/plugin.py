"""Register OVHcloud AI Deploy as a backend."""

from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.fleet.backend_plugin import BackendPlugin, opened_by

PLUGIN = BackendPlugin(
    "ovh",
    OvhSettings,
    opened_by("ollama_proxy.backends.ovh.backend", extra="ovh", libraries=["dxf"]),
)
