"""Build everything here, once, and hand it its parts: the composition root."""

from ollama_proxy.composition.access import Door as Door
from ollama_proxy.composition.app import build_app as build_app
from ollama_proxy.composition.app import open_runner as open_runner
from ollama_proxy.composition.backend import open_backend as open_backend
from ollama_proxy.composition.backend import open_backends as open_backends
from ollama_proxy.composition.parts import PARTS as PARTS
from ollama_proxy.composition.parts import Parts as Parts
