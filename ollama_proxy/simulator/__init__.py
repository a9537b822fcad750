"""Simulate Ollama: its API and its behaviour, with made-up text.

`local` starts it if no ``ollama`` is installed; the tests use it as upstream; and
``python -m ollama_proxy.simulator`` runs it alone. Every response says that it comes
from the simulator. Shapes and headers follow Ollama v0.33 as observed on the wire.
"""
