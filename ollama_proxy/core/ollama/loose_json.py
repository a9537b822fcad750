"""Look at a client's JSON as Go reads it, quickly where its keys are in lower case."""

from typing import TypeVar

import msgspec

from ollama_proxy.core.ollama.go_json import (
    MOST_BYTES,
    UnreadBodyError,
    are_folded,
    read_members,
)
from ollama_proxy.core.ollama.go_syntax import GoSyntaxError

_Shape = TypeVar("_Shape")

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MOST_MEMBERS = 100_000

UNREADABLE = (
    msgspec.MsgspecError,
    UnicodeDecodeError,
    RecursionError,
    OverflowError,
)
"""Exceptions that reading a client's JSON may raise."""


def read_loosely(body: bytes, shape: type[_Shape]) -> _Shape | None:
    """Return a JSON object as Go reads it: keys in any case, nulls as if absent.

    None if it does not have the given shape.
    """
    try:
        members = _MEMBERS.decode(body) if has_few_members(body) else {}
        if members and _is_as_go_reads_it(members):
            given = {k: v for k, v in members.items() if bytes(v) != b"null"}
            return msgspec.json.decode(msgspec.json.encode(given), type=shape)
    except UNREADABLE:
        pass
    try:
        return msgspec.json.decode(msgspec.json.encode(read_members(body)), type=shape)
    except (*UNREADABLE, GoSyntaxError, UnreadBodyError):
        return None


def takes_keys_as_they_are(body: bytes) -> bool:
    """Tell whether Go takes the keys of a JSON object as they are.

    Raises one of `UNREADABLE` if it is no object. False too if it is too large.
    """
    return has_few_members(body) and _is_as_go_reads_it(_MEMBERS.decode(body))


def has_few_members(body: bytes) -> bool:
    """Tell whether a body's members are made in little time: 30 ms at most."""
    return len(body) <= MOST_BYTES or body.count(b":") <= _MOST_MEMBERS


def _is_as_go_reads_it(members: dict[str, msgspec.Raw]) -> bool:
    """Tell whether Go takes an object's keys as they are.

    A ``model`` that is null may follow another one, and is ignored then.
    """
    if bytes(members.get("model", b"")) == b"null":
        return False
    return are_folded(members)
