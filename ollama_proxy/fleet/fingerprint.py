"""Name the settings on which a launch depends, so that a change of them is seen."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from pydantic import BaseModel, SecretStr

_SECRET_BYTES = 2
"""So few bytes of a secret's digest show a change, and do not reveal the secret."""


def fingerprint(backend: str, models: Sequence[str], spec: object) -> str:
    """Return 16 hex digits that change when any of the arguments does.

    ``spec``: what the backend builds instances from: plain values, mappings and
    settings.
    """
    told = msgspec.json.encode([backend, list(models), _plain(spec)], order="sorted")
    return hashlib.sha256(told).hexdigest()[:16]


def _plain(value: object) -> Any:
    match value:
        case SecretStr():
            secret = value.get_secret_value().encode()
            return hashlib.sha256(secret).hexdigest()[: 2 * _SECRET_BYTES]
        case BaseModel():
            return _plain(dict(value))
        case Mapping():
            return {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
    return str(sorted(value) if isinstance(value, frozenset) else value)
