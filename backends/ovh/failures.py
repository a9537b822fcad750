"""Name a failed call by its HTTP status, whichever driver made it."""

from collections.abc import Callable
from enum import Enum, auto

from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitError,
    SpecError,
    TransientError,
)

_FIRST_SERVER_ERROR = 500


class Aim(Enum):
    """Says what a call was meant to do."""

    READ = auto()
    CREATE = auto()
    CHANGE = auto()


def unanswered(aim: Aim, said: str) -> BackendError:
    """Return the error of a call that may have acted, if it was one to act."""
    return TransientError(said) if aim is Aim.READ else OutcomeUnknownError(said)


def failure(
    aim: Aim,
    status: int | None,
    said: str,
    *,
    is_api: bool = True,
    setting: str = "the log-in",
) -> BackendError:
    """Return the error for a failed call; without a status its outcome is unknown.

    ``is_api``: the response is from the API itself, and not from a gateway, whose 404
    is no statement about an app. ``setting``: where the credentials are set.
    """
    if status == 404 and not is_api:  # noqa: PLR2004
        return unanswered(aim, f"{said}; try again later, or check OVH_AI_API_URL")
    if status is None or status >= _FIRST_SERVER_ERROR:
        return unanswered(aim, said)
    if status == 400 and aim is Aim.CHANGE:  # noqa: PLR2004 - of the app's state
        return ConflictError(f"{said}; it is tried again")
    if status == 408:  # noqa: PLR2004
        return unanswered(aim, said)
    if status in {401, 403}:
        return _denied(status, said, setting)
    return _BY_STATUS.get(status, _unfit)(said)


def _denied(status: int, said: str, setting: str) -> BackendError:
    if status == 403 and "quota" in said.lower():  # noqa: PLR2004
        return CapacityError(f"{said}; ask OVHcloud for more, or stop something")
    if status == 403:  # noqa: PLR2004
        said = f"{said}; role or project do not allow it"
    return CredentialsError(
        f"{said}; check {setting}: a token belongs to one region, and one that manages"
        " apps has the role operator"
    )


def _unfit(said: str) -> BackendError:
    return SpecError(f"{said}; check OVH_FLAVOR, OVH_IMAGE and what else is set")


def _unpaid(said: str) -> BackendError:
    return CredentialsError(
        f"{said}; the project has no valid means of payment: set one in the console"
    )


_BY_STATUS: dict[int, Callable[[str], BackendError]] = {
    402: _unpaid,
    404: lambda said: NotFoundError(f"{said}; if one is meant to be there, check it"),
    409: lambda said: ConflictError(f"{said}; it is tried again"),
    429: RateLimitError,
}
