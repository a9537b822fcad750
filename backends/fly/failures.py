"""Map a failed call to an error: 409 and 412 have several meanings, by their text.

Sources: superfly/fly-go ``flaps/flaps_error.go``, and published responses.
"""

import re
from collections.abc import Callable

from ollama_proxy.backends.base.json_client import unanswered
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    SpecError,
    TransientError,
)

_TAKEN = re.compile(r"machine id (\w+) already exists")
_NO_ROOM = (
    "could not reserve resource",
    "insufficient",
    "governor policy",
    "temporarily disabled",
    "no capacity",
)
_UNPAID = ("payment", "billing", "machine limit", "machines limit", "credit card")


_CHECK = "; check FLY_APP, FLY_IMAGE, FLY_VM_SIZE and what else is set"
_NO_ROOM_ADVICE = "; wait, or change FLY_MACHINE_REGION or FLY_FALLBACK_REGIONS"


class NotYetError(TransientError):
    """Reports that a wait ran out; nothing went wrong."""


class NoAppError(NotFoundError):
    """Reports that there is no such app, and so nothing in it."""


class AppTakenError(SpecError):
    """Reports that there is an app of that name, of this or another owner."""


class NameTakenError(ConflictError):
    """Reports that a machine of that name is there already: ``machine_id``."""

    def __init__(self, message: str, machine_id: str) -> None:
        super().__init__(message)
        self.machine_id = machine_id


def failure(*, reads: bool, status: int, said: str, body: object) -> BackendError:
    """Return the error by what to do next; by the body's words, never by the path's."""
    if status >= 500 or (status == 408 and not reads):  # noqa: PLR2004
        return unanswered(reads=reads, said=said)
    if status == 404 and not isinstance(body, dict):  # noqa: PLR2004
        again = f"{said}; it is asked again, or check FLY_FLAPS_BASE_URL"
        return TransientError(again)  # a gateway in between sent it
    text, code = _words(body)
    known: dict[int, Callable[[str, str, str], BackendError]] = {
        401: _denied,
        403: _denied,
        404: lambda said, _text, _code: NotFoundError(f"{said}{_CHECK}"),
        408: lambda said, _text, _code: NotYetError(f"{said}; it is asked again"),
        409: _conflict,
        412: _refused_now,
        422: _invalid,
        429: lambda said, _text, _code: TransientError(said),
    }
    refused = known.get(status)
    if refused is None:
        return SpecError(f"{said}{_CHECK}")
    return refused(said, text, code)


def _words(body: object) -> tuple[str, str]:
    """Return a body's message, in lower case, and its own status."""
    if not isinstance(body, dict):
        return "", ""
    text = str(body.get("error") or body.get("message") or "")
    return text.lower(), str(body.get("status") or "")


def _denied(said: str, _text: str, _code: str) -> BackendError:
    return CredentialsError(
        f"{said}; check FLY_API_TOKEN: it has to be a token of the app, or of its"
        " organisation"
    )


def _conflict(said: str, text: str, _code: str) -> BackendError:
    """Return what a 409 means; a held lease and a lost race pass by themselves."""
    if (match := _TAKEN.search(text)) is not None:
        return NameTakenError(said, match[1])
    if any(words in text for words in _NO_ROOM):
        return CapacityError(f"{said}{_NO_ROOM_ADVICE}")
    return ConflictError(f"{said}; it is tried again")


def _refused_now(said: str, text: str, _code: str) -> BackendError:
    """Return what a 412 means: no room beside the volume, else not yet."""
    if "bound to" in text:
        return ConflictError(f"{said}; it is tried again")  # it is being detached
    if any(words in text for words in (*_NO_ROOM, "volume")):
        return CapacityError(f"{said}{_NO_ROOM_ADVICE}")
    return ConflictError(f"{said}; it is tried again")


def _invalid(said: str, text: str, code: str) -> BackendError:
    if code == "insufficient_capacity" or any(words in text for words in _NO_ROOM):
        return CapacityError(f"{said}{_NO_ROOM_ADVICE}")
    if any(words in text for words in _UNPAID):
        message = f"{said}; mend the organisation's billing or limits at fly.io"
        return CredentialsError(message)
    if code == "name_taken" or "already been taken" in text:
        message = f"{said}; app names are global: choose another FLY_APP"
        return AppTakenError(message)
    return SpecError(f"{said}{_CHECK}")
