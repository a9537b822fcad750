"""Serve Ollama on :11434, on a machine that exists only while somebody uses it."""

__version__ = "0.1.0"
