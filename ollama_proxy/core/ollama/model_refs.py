"""Tell which names of models Ollama accepts at all.

The rules are those of ``types/model/name.go`` and ``internal/modelref/modelref.go``
(v0.33): ``host/namespace/model:tag``, and the suffixes ``:cloud`` and ``:local``.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from ollama_proxy.core.ollama.go_words import go_quoted

_PLAIN = r"[A-Za-z0-9_][A-Za-z0-9_\-.]{0,79}"
_USUAL = re.compile(rf"{_PLAIN}(?::{_PLAIN})?\Z")
HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-.:]{0,349}\Z")
NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]{0,79}\Z")
MODEL = re.compile(rf"{_PLAIN}\Z")
"""What a model, and a tag, may be called."""
_GO_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006" + (
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)


class Source(StrEnum):
    """Names where a model runs, by its name."""

    UNSPECIFIED = "unspecified"
    LOCAL = "local"
    CLOUD = "cloud"


class ModelRequiredError(ValueError):
    """Reports that no model is named."""


class ConflictingSourceError(ValueError):
    """Reports a name that asks for two sources."""


class UnqualifiedNameError(ValueError):
    """Reports a name that no model can have."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Holds a name that a model can have. ``base`` is without the source."""

    base: str
    source: Source


def parse_ref(raw: str) -> ModelRef:
    """Return what a request's ``model`` means.

    Raises `ModelRequiredError`, `ConflictingSourceError` or `UnqualifiedNameError`.
    """
    if _USUAL.match(raw) and raw[-5:].lower() not in {"cloud", "local"}:
        return ModelRef(raw, Source.UNSPECIFIED)
    base, source = _split(raw)
    return _checked(base, source)


def parse_pull_ref(raw: str) -> ModelRef:
    """Return what the model of a pull or a deletion means; ``:cloud`` is a tag here.

    Raises as `parse_ref` does.
    """
    base, source = _split(raw)
    return _checked(
        _legacy_cloud_name(base) if source is Source.CLOUD else base, source
    )


def _split(raw: str) -> tuple[str, Source]:
    name = raw.strip(_GO_SPACE)
    if not name:
        raise ModelRequiredError("model is required")
    base, source = _split_source(name)
    if source is not Source.UNSPECIFIED:
        _, nested = _split_source(base)
        if nested is not Source.UNSPECIFIED:
            both = f"use either :local or :cloud, not both: {go_quoted(name)}"
            raise ConflictingSourceError(both)
    return base, source


def _checked(base: str, source: Source) -> ModelRef:
    if not is_valid_name(base):
        raise UnqualifiedNameError(f"unqualified name: {base}")
    return ModelRef(base, source)


def _legacy_cloud_name(base: str) -> str:
    has_tag = base.rfind(":") > base.rfind("/")
    return f"{base}-cloud" if has_tag else f"{base}:cloud"


def _split_source(name: str) -> tuple[str, Source]:
    base, colon, last = name.rpartition(":")
    tag = last.strip(_GO_SPACE)
    if not colon:
        return name, Source.UNSPECIFIED
    if tag.lower() in {"cloud", "local"}:
        return base, Source(tag.lower())
    if "/" not in tag and tag.lower().endswith("-cloud"):
        return f"{base}:{tag[: -len('-cloud')]}", Source.CLOUD
    return name, Source.UNSPECIFIED


def is_valid_name(name: str) -> bool:
    """Tell whether a name has the form ``host/namespace/model:tag``, parts left out."""
    rest, tag = name, "latest"
    if name.rfind(":") > name.rfind("/"):
        rest, _, tag = name.rpartition(":")
        if not rest or not tag:
            return False
    parts = rest.rsplit("/", 2)
    if len(parts) > 1 and not all(parts):
        return False
    model, namespace = parts[-1], parts[-2] if len(parts) > 1 else "library"
    host = parts[0] if len(parts) > 2 else ""  # noqa: PLR2004 - host, namespace, model
    if "://" in host:
        host = host.partition("://")[2]
    host = host or "registry.ollama.ai"
    checked = ((HOST, host), (NAMESPACE, namespace), (MODEL, model), (MODEL, tag))
    return all(pattern.match(part) for pattern, part in checked)
