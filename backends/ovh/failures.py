"""What a failed call means, by its HTTP status, whichever driver made it."""

from collections.abc import Callable
from enum import Enum, auto

from ollama_proxy.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    OutcomeUnknownError,
    SpecError,
    TransientError,
)

_FIRST_SERVER_ERROR = 500


class Aim(Enum):
    """What a call was to do."""

    READ = auto()
    CREATE = auto()
    CHANGE = auto()


def unanswered(aim: Aim, said: str) -> BackendError:
    """Return the error of a call that may have acted, if it was one to act."""
    return TransientError(said) if aim is Aim.READ else OutcomeUnknownError(said)


def failure(
    aim: Aim, status: int | None, said: str, *, is_api: bool = True
) -> BackendError:
    """Return the error by what to do next; without a status nothing is known.

    ``is_api``: the API itself has spoken, and nothing on the way to it, whose 404
    says nothing of an app.
    """
    if status == 404 and not is_api:  # noqa: PLR2004
        return unanswered(aim, said)
    if status is None or status >= _FIRST_SERVER_ERROR:
        return unanswered(aim, said)
    if status == 400 and aim is Aim.CHANGE:  # noqa: PLR2004 - of the app's state
        return ConflictError(said)
    if status == 408:  # noqa: PLR2004
        return unanswered(aim, said)
    return _BY_STATUS.get(status, SpecError)(said)


def _denied(said: str) -> BackendError:
    return CredentialsError(
        f"{said}; check the token or log-in: tokens belong to one region, and one that"
        " manages apps has the role operator"
    )


def _unpaid(said: str) -> BackendError:
    return CredentialsError(f"{said}; the project has no valid means of payment")


def _forbidden(said: str) -> BackendError:
    if "quota" in said.lower():
        return CapacityError(f"{said}; ask OVHcloud for more, or stop something")
    return CredentialsError(f"{said}; role or project do not allow it")


_BY_STATUS: dict[int, Callable[[str], BackendError]] = {
    401: _denied,
    402: _unpaid,
    403: _forbidden,
    404: NotFoundError,
    409: ConflictError,
    429: TransientError,
}
