"""Fill the templates of ``cloud-init/``: what runs on an instance.

A placeholder without a value is an error, never an empty string.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

_TEMPLATES = Environment(
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - env files and cloud-config, never HTML
)


def source(name: str) -> str:
    """Return the file ``cloud-init/<name>`` as it is."""
    return (files("ollama_proxy") / "cloud_init" / name).read_text("utf-8")


def render(name: str, **values: Any) -> str:
    """Return the template ``cloud-init/<name>`` with its gaps filled."""
    return _TEMPLATES.from_string(source(name)).render(**values)


def ollama_env(
    *,
    host: str,
    port: int,
    models_dir: str | None = None,
    given: Mapping[str, str] | None = None,
) -> str:
    """Return these variables as the text of an environment file."""
    return render(
        "ollama.env",
        host=host,
        port=port,
        models_dir=models_dir,
        environment=dict(given or {}),
    )


def ollama_environment(
    *,
    host: str,
    port: int,
    models_dir: str | None = None,
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the environment variables that Ollama gets on an instance.

    ``given``: what the settings say besides.
    """
    text = ollama_env(host=host, port=port, models_dir=models_dir, given=given)
    pairs = [line.partition("=") for line in text.splitlines()]
    return {
        name: value
        for name, found, value in pairs
        if found and not name.startswith("#")
    }
