"""Wait for Exoscale's operations: what a call begins, and the API reports on."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from ollama_proxy.backends.foreign_words import plain_words
from ollama_proxy.base.errors import NotFoundError, TransientError

_SETTLED_S = 60.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 3.0


class Caller(Protocol):
    """Calls the API of one zone; `ExoscaleApi` does."""

    zone: str

    async def call(self, operation: str, **arguments: Any) -> Any:
        """Return the answer of one operation of the SDK."""


class OperationFailedError(TransientError):
    """Reports an operation that failed; ``why`` is the API's word for it, or empty."""

    def __init__(self, message: str, *, why: str) -> None:
        super().__init__(message)
        self.why = why


def reference_of(operation: Mapping[str, Any]) -> str | None:
    """Return the id of what an operation is about; None if it does not say."""
    reference = operation.get("reference")
    found = reference.get("id") if isinstance(reference, Mapping) else None
    return found if isinstance(found, str) and found else None


async def settled(
    api: Caller,
    operation: dict[str, Any],
    *,
    limit_s: float = _SETTLED_S,
    what: str = "an operation",
) -> dict[str, Any]:
    """Wait until an operation has ended and return it; the SDK's own wait may not end.

    A new operation may be unknown for a moment, and a failed look proves nothing.
    Raises `OperationFailedError` if it failed, and `TransientError` if it takes longer
    than ``limit_s``.
    """
    pause_s = _FIRST_PAUSE_S
    try:
        async with asyncio.timeout(limit_s):
            # A loop of its own instead of retries: only the cloud's answer ends it.
            while operation.get("state", "pending") == "pending":
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, 2.0 * pause_s)
                try:
                    operation = await api.call("get_operation", id=operation.get("id"))
                except (NotFoundError, TransientError):
                    continue
    except TimeoutError:
        message = (
            f"{what} in {api.zone} takes longer than {limit_s:.0f} s; it is looked at"
            f" again; if that stays so, look into the portal, at EXOSCALE_ZONE"
        )
        raise TransientError(message) from None
    if operation.get("state") != "success":
        why = operation.get("reason") or operation.get("message") or "no reason given"
        message = (
            f"{what} in {api.zone} failed: {plain_words(str(why))}; it is tried again;"
            " if that stays so, look into the portal, at EXOSCALE_ZONE"
        )
        raise OperationFailedError(message, why=str(operation.get("reason") or ""))
    return operation
