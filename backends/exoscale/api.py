"""Call Exoscale's API through the official SDK, without blocking the event loop.

The SDK blocks, has no time-outs and repeats nothing. This module does not repeat
either: a second ``create-instance`` buys a second machine. Only a call that was refused
with 429 is sent again. Each call runs in a thread, each thread has a client of its own,
and every failure has a class that says what to do next.
"""

import asyncio
import functools
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from exoscale.api.exceptions import ExoscaleAPIException
from exoscale.api.v2 import Client

from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.exoscale.advice import Advice
from ollama_proxy.backends.exoscale.failures import Failures, is_reading, unanswered
from ollama_proxy.backends.exoscale.operations import settled
from ollama_proxy.backends.patience import Patience, Sleep
from ollama_proxy.backends.way_out import authorities, web_proxy
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import TransientError

ENDPOINT = "https://api-{zone}.exoscale.com/v2"
_THREADS = 4
_BARE_LIST = "list_events"
"""The only operation that returns an array; all others return an object."""


class ExoscaleApi:
    """Calls the API of one zone. Every id but that of a security group belongs to it.

    ``values``: configured values by the names of their settings, for errors.
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
        self._secret = secret
        self._timeout_s = timing.connect_s, timing.call_s
        self._clock = clock
        self.changed_at = -math.inf
        """When the last changing call was sent: the log contains only changes."""
        self.patience = Patience(clock, sleep, cloud="Exoscale")
        advice = Advice(zone, self._url, values or {})
        self._failures = Failures(zone, advice, clock, self.patience)
        self._threads = ThreadPoolExecutor(_THREADS, f"exoscale {zone}")
        self._local = threading.local()
        self._clients: list[Client] = []

    def close(self) -> None:
        """Start no more calls; those under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            client.http_client.close()

    async def call(self, operation: str, **arguments: Any) -> Any:
        """Return the response of one operation, named as in the SDK.

        Sent again while Exoscale answers 429, for 75 s at most. Raises `BackendError`s;
        `OutcomeUnknownError` if a call that changes something may have arrived.
        """
        send = functools.partial(self.call_once, operation, **arguments)
        return await self.patience.through(send)

    async def call_once(self, operation: str, **arguments: Any) -> Any:
        """Send one operation and return its answer; raises as `call` does."""
        if not is_reading(operation):
            self.changed_at = self._clock.now()
        loop = asyncio.get_running_loop()
        call = functools.partial(self._call, operation, arguments)
        return await loop.run_in_executor(self._threads, call)

    async def carry_out(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Begin an operation, wait until it has ended, and return it.

        Raises as `call` and `settled` do.
        """
        begun = await self.call(operation, **arguments)
        return await settled(self, begun, what=operation)

    async def zone_names(self) -> list[str]:
        """Return the names of all zones; raises `TransientError` if there is no list.

        The SDK's own call has neither our time-out nor our web proxy.
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
            raise self._failures.broken("list_zones", error) from None
        try:
            return [str(zone["name"]) for zone in listed["zones"]]
        except (KeyError, TypeError):
            said = f"list_zones: the answer names no zones{self._failures.mend}"
            raise TransientError(said) from None

    def _call(self, operation: str, arguments: dict[str, Any]) -> Any:
        method: Callable[..., Any] = getattr(self._client(), operation)
        try:
            answer = method(**arguments)
        except ExoscaleAPIException as error:
            raise self._failures.named(operation, error) from None
        except requests.exceptions.RequestException as error:
            raise self._failures.broken(operation, error) from None
        if not isinstance(answer, list if operation == _BARE_LIST else dict):
            said = f"{operation} in {self.zone} got an answer that can't be read"
            raise unanswered(operation, f"{said}{self._failures.mend}")
        return answer

    def _client(self) -> Client:
        """Return this thread's client: `requests` promises no thread safety."""
        client = getattr(self._local, "client", None)
        if client is None:
            proxy, trusted = web_proxy(self._url), authorities()
            client = Client(self.key, self._secret, url=self._url)
            session = client.http_client
            session.trust_env = False  # ignore the environment's proxies and .netrc
            session.proxies = {"all": proxy} if proxy else {}
            session.verify = trusted or True
            session.request = functools.partial(
                session.request, timeout=self._timeout_s
            )
            self._local.client = client
            self._clients.append(client)
        return client


def _unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave a request unsigned: a role may forbid a key what is public."""
    return request
