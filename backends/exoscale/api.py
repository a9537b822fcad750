"""Call Exoscale's API through the official SDK, made fit for an event loop.

The SDK blocks, has no time-outs and repeats nothing, which is kept: a repeated
``create-instance`` buys a second machine. Only a call that was refused for the number
of calls is sent again. Each call runs in a thread, each thread has a client of its
own, and every failure is named after what to do next.
"""

import asyncio
import email.utils
import functools
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from exoscale.api.exceptions import (
    ExoscaleAPIAuthException,
    ExoscaleAPIException,
)
from exoscale.api.v2 import Client

from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.exoscale.advice import Advice
from ollama_proxy.backends.foreign_words import (
    plain_words,
    why_unanswered,
    words_of,
)
from ollama_proxy.backends.patience import Patience, Sleep
from ollama_proxy.backends.retry_after import retry_after_s
from ollama_proxy.backends.way_out import authorities, web_proxy, why_nothing_left
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

ENDPOINT = "https://api-{zone}.exoscale.com/v2"
_THREADS = 4
_MAX_SKEW_S = 300.0
_BARE_LIST = "list_events"
"""The one operation that is answered with an array; any other's answer is an object."""
_SETTLED_S = 60.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 3.0
_READING = ("get_", "list_")
_BUYING = frozenset({"create_instance", "start_instance"})


class OperationFailedError(TransientError):
    """Reports an operation that failed; ``why`` is the API's word for it, or empty."""

    def __init__(self, message: str, *, why: str) -> None:
        super().__init__(message)
        self.why = why


class ExoscaleApi:
    """Calls the API of one zone. Every id but that of a security group belongs to it.

    ``values``: what is set, by the names of settings, for errors.
    """

    def __init__(
        self,
        zone: str,
        *,
        endpoint: str,
        key: str,
        secret: str,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
        values: Mapping[str, str] | None = None,
        timing: CloudTiming = STANDARD,
    ) -> None:
        self.zone = zone
        self.key = key
        self._url = endpoint.replace("{zone}", zone)
        self._advice = Advice(zone, self._url, values or {})
        self._secret = secret
        self._timeout_s = timing.connect_s, timing.call_s
        self._clock = clock
        self.changed_at = -math.inf
        """When a call was sent last that changes something: the log tells of these."""
        self.patience = Patience(clock, sleep, cloud="Exoscale")
        self._threads = ThreadPoolExecutor(_THREADS, f"exoscale {zone}")
        self._local = threading.local()
        self._clients: list[Client] = []

    def close(self) -> None:
        """Start no more calls; those under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            client.http_client.close()

    async def call(self, operation: str, **arguments: Any) -> Any:
        """Return the answer of one operation, named as in the SDK.

        It is sent again while Exoscale answers 429, for 75 s at most. Raises
        `BackendError`s; `OutcomeUnknownError` if a call that changes something may
        have arrived.
        """
        send = functools.partial(self.call_once, operation, **arguments)
        return await self.patience.through(send)

    async def call_once(self, operation: str, **arguments: Any) -> Any:
        """Send one operation and return its answer; raises as `call` does."""
        if not operation.startswith(_READING):
            self.changed_at = self._clock.now()
        loop = asyncio.get_running_loop()
        call = functools.partial(self._call, operation, arguments)
        return await loop.run_in_executor(self._threads, call)

    async def carry_out(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Begin an operation, wait until it is over, and return it.

        Raises as `call` and `settled` do.
        """
        begun = await self.call(operation, **arguments)
        return await settled(self, begun, what=operation)

    async def zone_names(self) -> list[str]:
        """Return the names of all zones; raises `TransientError` if none can be had.

        The SDK's own call has neither our time-out nor our way out.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._zone_names)

    def _zone_names(self) -> list[str]:
        session = self._client().http_client
        try:
            answer = session.request("GET", f"{self._url}/zone", auth=_unsigned)
            answer.raise_for_status()
            listed = answer.json()
        except requests.exceptions.RequestException as error:
            raise self._broken("list_zones", error) from None
        try:
            return [str(zone["name"]) for zone in listed["zones"]]
        except (KeyError, TypeError):
            said = f"list_zones: the answer names no zones{self._mend}"
            raise TransientError(said) from None

    def _call(self, operation: str, arguments: dict[str, Any]) -> Any:
        method: Callable[..., Any] = getattr(self._client(), operation)
        try:
            answer = method(**arguments)
        except ExoscaleAPIException as error:
            raise self._named(operation, error) from None
        except requests.exceptions.RequestException as error:
            raise self._broken(operation, error) from None
        if not isinstance(answer, list if operation == _BARE_LIST else dict):
            said = f"{operation} in {self.zone} got an answer that can't be read"
            raise _unanswered(operation, f"{said}{self._mend}")
        return answer

    def _client(self) -> Client:
        """Return this thread's client: `requests` promises no thread safety."""
        client = getattr(self._local, "client", None)
        if client is None:
            proxy, trusted = web_proxy(self._url), authorities()
            client = Client(self.key, self._secret, url=self._url)
            session = client.http_client
            session.trust_env = False  # it knows of no proxy; nor of a user's .netrc
            session.proxies = {"all": proxy} if proxy else {}
            session.verify = trusted or True
            session.request = functools.partial(
                session.request, timeout=self._timeout_s
            )
            self._local.client = client
            self._clients.append(client)
        return client

    def _named(self, operation: str, error: ExoscaleAPIException) -> BackendError:
        """Return the error by what to do next; by the status, never by the text."""
        response = error.response
        status = response.status_code if response is not None else 0
        said = f"{operation} in {self.zone} got {status}: {_text(error)}"
        if isinstance(error, ExoscaleAPIAuthException) or status in {401, 403}:
            return self._denied(operation, response, said)
        if status == 429:  # noqa: PLR2004
            return self._limited(response, said)
        is_api = response is not None and _json(response) is not None
        if status >= 500 or status == 408 or not is_api:  # noqa: PLR2004
            said = f"{said}{self._mend}"
        else:
            said = f"{said}; {_what_to_do(operation, status, self._advice)}"
        if status >= 500:  # noqa: PLR2004
            return _unanswered(operation, said)
        return _BY_STATUS.get(status, _refusal)(operation, said)

    @property
    def _mend(self) -> str:
        return f"; try again later, or check {self._advice.endpoint}"

    def _limited(self, response: requests.Response | None, said: str) -> BackendError:
        """Return the error of a call that came too soon, with how long to wait."""
        after_s = None
        if response is not None:
            body = _json(response)
            after_s = retry_after_s(response.headers, body, self._clock.wall())
        if after_s is not None:
            self.patience.close_for(after_s)
        asked = "" if after_s is None else f", and wants none for {after_s:.0f} s"
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

    def _broken(
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
            TransientError(said) if _never_sent(error) else _unanswered(operation, said)
        )

    def _skew_s(self, response: requests.Response | None) -> float:
        """Return how far our clock is ahead of the server's."""
        stamp = response.headers.get("Date") if response is not None else None
        try:
            server = email.utils.parsedate_to_datetime(stamp or "")
        except ValueError:
            return 0.0
        return self._clock.wall() - server.timestamp()


def _unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave a request as it is: a role may forbid a key what is open to everybody."""
    return request


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


def _unanswered(operation: str, said: str) -> BackendError:
    """Return the error of a call that may have acted, if it was one to act."""
    if operation.startswith(_READING):
        return TransientError(said)
    return OutcomeUnknownError(said)


_BY_STATUS: dict[int, Callable[[str, str], BackendError]] = {
    404: _missing,
    408: _unanswered,
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
    """Tell whether no connection came about, so nothing can have arrived."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    return type(getattr(cause, "reason", None)).__name__ == "NewConnectionError"


def reference_of(operation: Mapping[str, Any]) -> str | None:
    """Return the id of what an operation is about; None if it does not say."""
    reference = operation.get("reference")
    found = reference.get("id") if isinstance(reference, Mapping) else None
    return found if isinstance(found, str) and found else None


async def settled(
    api: ExoscaleApi,
    operation: dict[str, Any],
    *,
    limit_s: float = _SETTLED_S,
    what: str = "an operation",
) -> dict[str, Any]:
    """Wait until an operation is over and return it; the SDK's own wait may not end.

    An operation that was just begun may be unknown for a moment, and a failed look
    says nothing. Raises `OperationFailedError` if it failed, and `TransientError` if it
    takes longer than ``limit_s``.
    """
    pause_s = _FIRST_PAUSE_S
    try:
        async with asyncio.timeout(limit_s):
            # Hand-written: it ends only on the cloud's word; a failed look is no try.
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
