"""A settings file, and the faults of settings."""

from pathlib import Path

import pytest

from ollama_proxy.base.errors import SettingsError
from ollama_proxy.config.loader import load_settings


def toml(folder: Path, text: str) -> Path:
    """Return the path of a settings file with this in it."""
    path = folder / "p.toml"
    path.write_text(text)
    return path


def faults(env: dict[str, str], file: Path | None = None) -> list[str]:
    """Return what is wrong with settings, a sentence each."""
    with pytest.raises(SettingsError) as caught:
        load_settings(env, file)
    return list(caught.value.faults)
