"""Read and extend a list of models, and write its entries in OpenAI's shape.

The list is a body of ``/api/tags``.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from ollama_proxy.core.ollama.model_names import full_model_name

NO_DETAILS: dict[str, Any] = {
    "parent_model": "",
    "format": "gguf",
    "family": "",
    "families": None,
    "parameter_size": "",
    "quantization_level": "",
}


class ListedModel(msgspec.Struct):
    """Holds the part of an entry of ``/api/tags`` that other answers are made of."""

    name: str
    modified_at: str = ""
    digest: str = ""
    size: int = 0


class Tags(msgspec.Struct):
    """Holds the body of ``/api/tags``."""

    models: list[ListedModel] = []


NO_TAGS = b'{"models":[]}'


def models_by_name(tags: bytes) -> dict[str, ListedModel]:
    """Return the models of a body of ``/api/tags`` by their full names."""
    listed = msgspec.json.decode(tags, type=Tags).models or []
    return {full_model_name(model.name): model for model in listed}


def with_more(tags: bytes, added: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a body of ``/api/tags`` with more entries; the others unchanged."""
    raw = msgspec.json.decode(tags, type=_RawTags).models
    entries = [*raw, *(msgspec.Raw(msgspec.json.encode(one)) for one in added)]
    return msgspec.json.encode({"models": entries})


class _RawTags(msgspec.Struct):
    models: list[msgspec.Raw] = []


def described(
    modified_at: str,
    *,
    details: Mapping[str, Any] = NO_DETAILS,
    capabilities: Sequence[str] = (),
) -> bytes:
    """Return a body of ``/api/show`` with what a list tells of a model."""
    body = {
        "license": "",
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": details,
        "model_info": {},
        "capabilities": capabilities or ["completion"],
        "modified_at": modified_at,
    }
    return msgspec.json.encode(body)


def openai_model_of(model: ListedModel, name: str | None = None) -> dict[str, Any]:
    """Return one model in OpenAI's shape, the owner being its namespace."""
    head = model.name.rpartition("/")[0]
    return {
        "id": name or model.name,
        "object": "model",
        "created": _unix_seconds(model.modified_at),
        "owned_by": head.rpartition("/")[2] or "library",
    }


def _unix_seconds(timestamp: str) -> int:
    try:
        return int(datetime.fromisoformat(timestamp).timestamp())
    except ValueError:
        return 0
