"""Give plug-ins the names of `ollama_proxy.fleet.backend` by a former path."""

from ollama_proxy.base.former_names import forwarded

__getattr__ = forwarded(__name__, {"*": "ollama_proxy.fleet.backend"})
