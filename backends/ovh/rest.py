"""AI Deploy's own API: plain HTTP and JSON, one host per region.

Nothing is repeated: a second ``POST /v1/app`` makes a second app. Every failure is
named after what to do next, by its status. Shapes as in ovh/ovhcloud-cli's
``api-schemas/cloud.json`` and ovh/ovhai-python-sdk.
"""

import asyncio
from typing import Any

import aiohttp
import msgspec

from ollama_proxy.backends.ovh.apps import App, read_app, read_apps
from ollama_proxy.backends.ovh.driver import explain_account
from ollama_proxy.backends.ovh.failures import Aim, failure, unanswered
from ollama_proxy.backends.ovh.flavors import Flavor, read_flavors
from ollama_proxy.backends.ovh.order import Order
from ollama_proxy.errors import OutcomeUnknownError, TransientError

_TIMEOUT_S = 30.0
_SHOWN = 200
_PAGE = 100
_MAX_PAGES = 200
_AIMS = {"POST /v1/app": Aim.CREATE}


class RestDriver:
    """The API of one region at ``url``, called with an AI token."""

    hides_environment = True

    def __init__(self, region: str, *, url: str, token: str) -> None:
        self._region = region
        self._url = url
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def apps(self) -> list[App]:
        """Return every app, page by page: nothing is absent before the last."""
        found: list[Any] = []
        for page in range(1, _MAX_PAGES + 1):
            query = {"page": page, "size": _PAGE}
            answer = await self._call("GET", "/v1/app", query=query)
            items = answer.get("items") if isinstance(answer, dict) else answer
            if not isinstance(items, list):
                raise TransientError(f"the list of apps in {self._region} has no items")
            found += items
            metadata = answer.get("metadata") if isinstance(answer, dict) else None
            if not _goes_on(metadata, page):
                return read_apps(found)
        raise TransientError(f"the list of apps in {self._region} does not end")

    async def app(self, app_id: str) -> App:
        """Return one app."""
        return read_app(await self._call("GET", f"/v1/app/{app_id}"))

    async def create(self, order: Order) -> App:
        """Make an app."""
        answer = await self._call("POST", "/v1/app", body=order.body())
        try:
            return read_app(answer)
        except TransientError as error:
            raise OutcomeUnknownError(str(error)) from error

    async def start(self, app_id: str) -> None:
        """Start an app that rests."""
        await self._call("PUT", f"/v1/app/{app_id}/start")

    async def stop(self, app_id: str) -> None:
        """Ask for an app to stop."""
        await self._call("PUT", f"/v1/app/{app_id}/stop")

    async def delete(self, app_id: str, *, force: bool) -> None:
        """Ask for an app to be deleted."""
        query = {"force": "true"} if force else {}
        await self._call("DELETE", f"/v1/app/{app_id}", query=query)

    async def label(self, app_id: str, name: str, value: str) -> None:
        """Set a label of an app."""
        body = {"name": name, "value": value}
        await self._call("PUT", f"/v1/app/{app_id}/label", body=body)

    async def flavors(self) -> list[Flavor]:
        """Return what the region sells."""
        return read_flavors(await self._call("GET", "/v1/capabilities/flavor"))

    async def whoami(self) -> str:
        """Return who the token belongs to."""
        return explain_account(await self._call("GET", "/v1/me"))

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
    ) -> Any:
        """Return the answer of one call, decoded; None if it has no body."""
        call = f"{method} {path} in {self._region}"
        aim = _AIMS.get(f"{method} {path}", Aim.CHANGE if method != "GET" else Aim.READ)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                status, raw = await self._exchange(method, path, query or {}, body)
        except aiohttp.ClientConnectorError as error:
            raise TransientError(f"{call}: {error}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unanswered(aim, f"{call}: {type(error).__name__}") from error
        if not 200 <= status < 300:  # noqa: PLR2004
            said = f"{call} got {status}: {_text(raw)}"
            raise failure(aim, status, said)
        if not raw.strip():
            return None
        try:
            return msgspec.json.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            message = f"{call} got an answer that can't be read: {error}"
            raise unanswered(aim, message) from error

    async def _exchange(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        body: dict[str, Any] | None,
    ) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        request = self._session.request(
            method,
            self._url + path,
            params=query,
            json=body,
            headers={"Authorization": f"Bearer {self._token}"},
            allow_redirects=False,
        )
        async with request as response:
            return response.status, await response.read()


def _goes_on(metadata: object, page: int) -> bool:
    """Tell whether a list has another page; one without any word of it has not."""
    if not isinstance(metadata, dict):
        return False
    links = metadata.get("links")
    if isinstance(links, dict) and links.get("next"):
        return True
    count = metadata.get("pageCount")
    return isinstance(count, int) and page < count


def _text(raw: bytes) -> str:
    """Return the beginning of what the server said, on one line."""
    text = raw.decode("utf-8", "replace")
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        body = None
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        text = body["message"]
    return " ".join(text.split())[:_SHOWN]
