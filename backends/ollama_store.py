"""The models of an Ollama on this machine, as they lie on its disk."""

from collections.abc import Mapping
from pathlib import Path


def models_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of the models of an ``ollama serve`` in this environment.

    Read as it reads it (``Models`` and ``Var`` in ``envconfig/config.go``).
    """
    named = environment.get("OLLAMA_MODELS", "").strip().strip("\"'")
    return Path(named) if named else Path("~/.ollama/models").expanduser()
