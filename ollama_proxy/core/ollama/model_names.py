"""Compare the names of models as Ollama does."""

import functools

_REMEMBERED_NAME = 200
_DEFAULT_PARTS = ("registry.ollama.ai/", "library/")


def full_model_name(name: str) -> str:
    """Return ``name`` as the store resolves it: lower case, short, with a tag."""
    if len(name) > _REMEMBERED_NAME:
        return shown_model_name(name).lower()
    return _remembered_name(name)


@functools.lru_cache(maxsize=128)  # called for each request; few models
def _remembered_name(name: str) -> str:
    return shown_model_name(name).lower()


def shown_model_name(name: str) -> str:
    """Return ``name`` as Ollama shows it: short, with a tag, in the client's letters.

    A scheme is dropped, of any letters (``ParseNameBare`` in ``types/model/name.go``),
    and so is ``:local``; a cloud model's suffix becomes part of its tag
    (``NormalizePullName`` in ``internal/modelref/modelref.go``).
    """
    short = name.strip()
    _, is_url, rest = short.partition("://")
    short = rest if is_url else short
    before, colon, last = short.rpartition(":")
    short = f"{before}:{last.strip()}" if colon else short
    for part in _DEFAULT_PARTS:
        if short[: len(part)].lower() == part:
            short = short[len(part) :]
    short = _without_suffix(short, ":local")
    base = _without_suffix(short, ":cloud")
    if base != short and ":" in base.rpartition("/")[2]:
        short = f"{base}-cloud"
    return short if ":" in short.rpartition("/")[2] else f"{short}:latest"


def _without_suffix(name: str, suffix: str) -> str:
    return name[: -len(suffix)] if name.lower().endswith(suffix) else name


def is_cloud_model(name: str) -> bool:
    """Tell whether a name means a model of ollama.com: ``:cloud`` or ``…-cloud``."""
    _, colon, last = name.rpartition(":")
    tag = last.strip().lower()
    named = tag == "cloud" or ("/" not in tag and tag.endswith("-cloud"))
    return bool(colon) and named
