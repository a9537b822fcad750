"""What a failed call means: 409 and 412 each mean several things, by their text.

Sources: superfly/fly-go ``flaps/flaps_error.go``, and answers that others published.
"""

import re
from collections.abc import Callable

from ollama_proxy.backends.rest import unanswered
from ollama_proxy.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    SpecError,
    TransientError,
)

_TAKEN = re.compile(r"machine ID (\w+) already exists", re.IGNORECASE)
_NO_ROOM = (
    "could not reserve resource",
    "insufficient",
    "governor policy",
    "temporarily disabled",
    "no capacity",
)
_BOUND = ("volume",)
_UNPAID = ("payment", "billing", "machine limit", "machines limit", "credit card")


class NotYetError(TransientError):
    """A wait ran out; nothing went wrong."""


class NameTakenError(ConflictError):
    """A machine of that name is there already: ``machine_id``."""

    def __init__(self, message: str, machine_id: str) -> None:
        super().__init__(message)
        self.machine_id = machine_id


def failure(*, reads: bool, status: int, said: str, body: object) -> BackendError:
    """Return the error by what to do next."""
    if status >= 500:  # noqa: PLR2004
        return unanswered(reads=reads, said=said)
    known: dict[int, Callable[[str, object], BackendError]] = {
        401: _denied,
        403: _denied,
        404: _missing,
        408: _not_yet,
        409: _conflict,
        412: _refused_now,
        422: _invalid,
        429: _later,
    }
    return known.get(status, _refused)(said, body)


def _denied(said: str, _body: object) -> BackendError:
    return CredentialsError(
        f"{said}; check FLY_API_TOKEN: it has to be a token of the app, or of its"
        " organisation"
    )


def _missing(said: str, body: object) -> BackendError:
    """Return what a 404 means; only the API's own says that nothing is there."""
    return NotFoundError(said) if isinstance(body, dict) else TransientError(said)


def _not_yet(said: str, _body: object) -> BackendError:
    return NotYetError(said)


def _later(said: str, _body: object) -> BackendError:
    return TransientError(said)


def _refused(said: str, _body: object) -> BackendError:
    return SpecError(said)


def _conflict(said: str, _body: object) -> BackendError:
    """Return what a 409 means; a held lease and a lost race pass by themselves."""
    if (match := _TAKEN.search(said)) is not None:
        return NameTakenError(said, match[1])
    if any(words in said.lower() for words in _NO_ROOM):
        return CapacityError(said)
    return ConflictError(said)


def _refused_now(said: str, _body: object) -> BackendError:
    """Return what a 412 means: no room beside the volume, else not yet."""
    lowered = said.lower()
    if any(words in lowered for words in (*_NO_ROOM, *_BOUND)):
        return CapacityError(said)
    return ConflictError(said)


def _invalid(said: str, body: object) -> BackendError:
    status = body.get("status") if isinstance(body, dict) else None
    lowered = said.lower()
    if status == "insufficient_capacity" or any(w in lowered for w in _NO_ROOM):
        return CapacityError(said)
    if any(words in lowered for words in _UNPAID):
        message = f"{said}; mend the organisation's billing or limits at fly.io"
        return CredentialsError(message)
    if status == "name_taken" or "already been taken" in lowered:
        message = f"{said}; app names are global: choose another FLY_APP"
        return SpecError(message)
    return SpecError(said)
