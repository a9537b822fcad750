"""Tell which models a key may use, by the globs of its rights. Pure."""

import functools
from typing import Final

from ollama_proxy.core.ollama.model_globs import ModelGlob
from ollama_proxy.core.ollama.model_names import full_model_name

_LONGEST_REMEMBERED: Final = 200  # a client may send any number of names


def may_use_model(globs: tuple[str, ...], model: str) -> bool:
    """Tell whether a model matches one of a key's globs; without globs all do.

    ``model``: however it is written. A glob that can't be read matches nothing.
    """
    if not globs:
        return True
    full = full_model_name(model)
    if len(full) > _LONGEST_REMEMBERED:
        return _is_matched(globs, full)
    return _remembered_match(globs, full)


@functools.lru_cache(maxsize=1024)  # called for each request; few models
def _remembered_match(globs: tuple[str, ...], full: str) -> bool:
    return _is_matched(globs, full)


def _is_matched(globs: tuple[str, ...], full: str) -> bool:
    return any(glob.matches(full) for glob in _parsed(globs))


@functools.lru_cache(maxsize=4096)  # called for each request; compiling takes 200 µs
def _parsed(globs: tuple[str, ...]) -> tuple[ModelGlob, ...]:
    parsed = []
    for text in globs:
        try:
            parsed.append(ModelGlob(text))
        except ValueError:  # refused where keys are made; a stored one may be older
            continue
    return tuple(parsed)
