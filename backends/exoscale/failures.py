"""Name each call that failed after what to do next, and say what a person can do."""

import email.utils
from collections.abc import Callable

import requests
from exoscale.api.exceptions import (
    ExoscaleAPIAuthException,
    ExoscaleAPIException,
)

from ollama_proxy.backends.exoscale.advice import Advice
from ollama_proxy.backends.foreign_words import (
    plain_words,
    why_unanswered,
    words_of,
)
from ollama_proxy.backends.patience import Patience
from ollama_proxy.backends.retry_after import retry_after_s
from ollama_proxy.backends.way_out import why_nothing_left
from ollama_proxy.base.clock import Clock
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

_MAX_SKEW_S = 300.0
_READING = ("get_", "list_")
_BUYING = frozenset({"create_instance", "start_instance"})


class Failures:
    """Maps the failures of one zone's calls to errors.

    A call that was refused for its rate closes ``patience`` for as long as Exoscale
    demands.
    """

    def __init__(
        self, zone: str, advice: Advice, clock: Clock, patience: Patience
    ) -> None:
        self._zone = zone
        self._advice = advice
        self._clock = clock
        self._patience = patience

    def named(self, operation: str, error: ExoscaleAPIException) -> BackendError:
        """Return the error by what to do next; by the status, never by the text."""
        response = error.response
        status = response.status_code if response is not None else 0
        said = f"{operation} in {self._zone} got {status}: {_text(error)}"
        if isinstance(error, ExoscaleAPIAuthException) or status in {401, 403}:
            return self._denied(operation, response, said)
        if status == 429:  # noqa: PLR2004
            return self._limited(response, said)
        is_api = response is not None and _json(response) is not None
        if status >= 500 or status == 408 or not is_api:  # noqa: PLR2004
            said = f"{said}{self.mend}"
        else:
            said = f"{said}; {_what_to_do(operation, status, self._advice)}"
        if status >= 500:  # noqa: PLR2004
            return unanswered(operation, said)
        return _BY_STATUS.get(status, _refusal)(operation, said)

    @property
    def mend(self) -> str:
        """Return what to do about a call that the API did not serve."""
        return f"; try again later, or check {self._advice.endpoint}"

    def _limited(self, response: requests.Response | None, said: str) -> BackendError:
        """Return the error of a rate-limited call, with the time to wait."""
        after_s = None
        if response is not None:
            body = _json(response)
            after_s = retry_after_s(response.headers, body, self._clock.wall())
        if after_s is not None:
            self._patience.close_for(after_s)
        asked = "" if after_s is None else f", and refuses more for {after_s:.0f} s"
        return RateLimitError(
            f"{said}; Exoscale limits how often this key may call{asked}; it is asked"
            " again after that. If other programs use it, set EXOSCALE_API_KEY and"
            " EXOSCALE_API_SECRET to a key of its own",
            retry_after_s=after_s,
        )

    def _denied(
        self, operation: str, response: requests.Response | None, said: str
    ) -> BackendError:
        skew_s = self._skew_s(response)
        if abs(skew_s) > _MAX_SKEW_S:
            return CredentialsError(
                f"this machine's clock is {skew_s:+.0f} s off Exoscale's, so every "
                "signature is refused; set the clock"
            )
        if "protect" in said:
            what = f"it in {self._advice.order(operation)}"
            return ConflictError(f"{said}; remove the protection of {what} by hand")
        return CredentialsError(
            f"{said}; check EXOSCALE_API_KEY and EXOSCALE_API_SECRET, and that the "
            f"key's role allows {operation.replace('_', '-')} in"
            f" {self._advice.order(operation)}"
        )

    def broken(
        self, operation: str, error: requests.exceptions.RequestException
    ) -> BackendError:
        """Return the error of a call without an answer that can be read."""
        if (why := why_nothing_left(error)) is not None:
            return TransientError(
                f"{operation}: {why}; or check {self._advice.endpoint}"
            )
        said = (
            f"{operation}: the API: {why_unanswered(error)}; see to this machine's"
            f" network, or check {self._advice.endpoint}"
        )
        return (
            TransientError(said) if _never_sent(error) else unanswered(operation, said)
        )

    def _skew_s(self, response: requests.Response | None) -> float:
        """Return how far our clock is ahead of the server's."""
        stamp = response.headers.get("Date") if response is not None else None
        try:
            server = email.utils.parsedate_to_datetime(stamp or "")
        except ValueError:
            return 0.0
        return self._clock.wall() - server.timestamp()


def is_reading(operation: str) -> bool:
    """Tell whether a call only reads, so that one without an answer did nothing."""
    return operation.startswith(_READING)


def _refusal(_operation: str, said: str) -> BackendError:
    return SpecError(said)


def _conflict(operation: str, said: str) -> BackendError:
    """Return what a 409 or 412 means: of a record, that there is no more."""
    if operation in _BUYING:
        return CapacityError(said)
    return ConflictError(said)


def _what_to_do(operation: str, status: int, advice: Advice) -> str:
    """Return what a person can do about a call that the API refused in its words."""
    order = advice.order(operation)
    if status == 404:  # noqa: PLR2004
        return f"there is none in {order}; if that is not meant, check it"
    if status not in {409, 412}:
        return f"check {order}"
    if operation in _BUYING:
        return (
            f"ask Exoscale for a higher quota, wait, or change {order},"
            " EXOSCALE_FALLBACK_TYPES or EXOSCALE_FALLBACK_ZONES"
        )
    return f"it is tried again; if that stays so, look into the portal, at {order}"


def _missing(_operation: str, said: str) -> BackendError:
    return NotFoundError(said)


def unanswered(operation: str, said: str) -> BackendError:
    """Return the error of a call that may have acted, if it was one to act."""
    if is_reading(operation):
        return TransientError(said)
    return OutcomeUnknownError(said)


_BY_STATUS: dict[int, Callable[[str, str], BackendError]] = {
    404: _missing,
    408: unanswered,
    409: _conflict,
    412: _conflict,
}


def _json(response: requests.Response) -> object:
    try:
        return response.json()
    except ValueError:
        return None


def _text(error: ExoscaleAPIException) -> str:
    """Return the beginning of the server's text, on one line."""
    if error.response is None:
        return plain_words(str(error))
    return words_of(error.response.content, _json(error.response))


def _never_sent(error: requests.exceptions.RequestException) -> bool:
    """Tell whether no connection was made, so nothing can have arrived."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    return type(getattr(cause, "reason", None)).__name__ == "NewConnectionError"
