"""Suggest the model that a person tries first: one that will be there."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

SIMULATED_MODELS: Final = ("llama3.2",)
"""The model of a simulated instance if no setting names one."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")  # no quotes needed in a shell


class SuggestedModel(NamedTuple):
    """Names a model to try; one not known to be there has to be pulled first."""

    name: str
    is_there: bool


class _Model(msgspec.Struct):
    name: str = ""
    capabilities: list[str] | None = None


class _Tags(msgspec.Struct):
    models: list[_Model] | None = None


def suggest_model(
    configured: Sequence[str], tags: bytes | None, *, simulated: bool
) -> SuggestedModel:
    """Return the first configured model, else the newest that is listed.

    ``tags``: the body of ``/api/tags``; None if unknown.
    """
    if configured:
        return SuggestedModel(configured[0], is_there=True)
    if simulated:
        return SuggestedModel(SIMULATED_MODELS[0], is_there=True)
    for name in _talkers(tags or b"{}"):
        return SuggestedModel(name.removesuffix(":latest"), is_there=True)
    return SuggestedModel(SIMULATED_MODELS[0], is_there=False)


def _talkers(tags: bytes) -> list[str]:
    """Return the models that answer in words, by what their descriptions say."""
    try:
        models = msgspec.json.decode(tags, type=_Tags).models or []
    except msgspec.MsgspecError:
        return []
    return [
        model.name
        for model in models
        if _PLAIN.fullmatch(model.name)
        and (model.capabilities is None or "completion" in model.capabilities)
    ]
