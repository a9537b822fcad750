"""Call AI Deploy's own API: plain HTTP and JSON, one host per region.

Nothing is repeated: a second ``POST /v1/app`` makes a second app. Every status is
mapped to an error that says what to do next. Shapes as in ovh/ovhcloud-cli's
``api-schemas/cloud.json`` and ovh/ovhai-python-sdk.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from ollama_proxy.backends.base.json_client import Named, RestClient
from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.ovh.app_log import LINES, LOG_BYTES
from ollama_proxy.backends.ovh.apps import App, read_app, read_apps
from ollama_proxy.backends.ovh.driver import explain_account
from ollama_proxy.backends.ovh.failures import Aim, failure
from ollama_proxy.backends.ovh.flavors import Flavor, read_flavors
from ollama_proxy.backends.ovh.order import Order
from ollama_proxy.backends.ovh.paging import read_list
from ollama_proxy.base.errors import BackendError, OutcomeUnknownError, TransientError

_APPS = "/v1/app"
_AIMS = {f"POST {_APPS}": Aim.CREATE}


class RestDriver:
    """Calls the API of one region at ``url`` with an AI token of ``setting``."""

    hides_environment = True

    def __init__(
        self,
        region: str,
        *,
        url: str,
        token: str,
        setting: str = "OVH_AI_TOKEN",
        timing: CloudTiming = STANDARD,
    ) -> None:
        self._region = region
        self._setting = setting
        self._url = url
        self._client = RestClient(
            url, token, setting="OVH_AI_API_URL and OVH_REGION", timing=timing
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def apps(self) -> list[App]:
        """Return every app, page by page: nothing is absent before the last."""
        what = f"the list of apps in {self._region}"
        with self._readable():
            found = await read_list(self._ask, base=self._url, path=_APPS, what=what)
            return read_apps(found)

    async def _ask(self, place: str) -> Any:
        return await self._call("GET", place)

    async def app(self, app_id: str) -> App:
        """Return one app."""
        found = await self._call("GET", f"/v1/app/{app_id}")
        with self._readable():
            return read_app(found)

    async def create(self, order: Order) -> App:
        """Make an app."""
        answer = await self._call("POST", _APPS, body=order.body())
        try:
            return read_app(answer)
        except TransientError as error:
            raise OutcomeUnknownError(str(error)) from error

    async def start(self, app_id: str) -> None:
        """Start an app that is stopped."""
        await self._call("PUT", f"/v1/app/{app_id}/start")

    async def stop(self, app_id: str) -> None:
        """Ask for an app to stop."""
        await self._call("PUT", f"/v1/app/{app_id}/stop")

    async def delete(self, app_id: str, *, force: bool) -> None:
        """Ask for an app to be deleted."""
        query: dict[str, str | int] = {"force": "true"} if force else {}
        await self._call("DELETE", f"/v1/app/{app_id}", query=query)

    async def label(self, app_id: str, name: str, value: str) -> None:
        """Set a label of an app."""
        body = {"name": name, "value": value}
        await self._call("PUT", f"/v1/app/{app_id}/label", body=body)

    async def log(self, app_id: str) -> str:
        """Return the end of what an app has printed."""
        path = f"/v1/app/{app_id}/log"
        query: dict[str, str | int] = {"tail": LINES}
        return await self._client.text(
            path, self._naming(Aim.READ), query=query, most=LOG_BYTES
        )

    async def flavors(self) -> list[Flavor]:
        """Return what the region sells."""
        found = await self._call("GET", "/v1/capabilities/flavor")
        with self._readable():
            return read_flavors(found)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Add its origin to an error about an answer of an unknown shape."""
        try:
            yield
        except BackendError as error:
            if "OVH_" in str(error):
                raise
            where = f"OVH_REGION ({self._region!r}) and OVH_AI_API_URL"
            said = f"{error}; try again later, or check {where}"
            raise type(error)(said) from error

    async def whoami(self) -> str:
        """Return the owner of the token."""
        return explain_account(await self._call("GET", "/v1/me"))

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | int] | None = None,
        body: dict[str, Any] | None = None,
    ) -> Any:
        """Return the answer of one call; raises what its failure means."""
        default = Aim.READ if method == "GET" else Aim.CHANGE
        named = self._naming(_AIMS.get(f"{method} {path}", default))
        return await self._client.call(method, path, named, query=query, body=body)

    def _naming(self, aim: Aim) -> Named:
        def named(status: int, said: str, answer: object) -> BackendError:
            is_api = isinstance(answer, dict)
            said = f"{said}, in OVH_REGION ({self._region!r})"
            return failure(aim, status, said, is_api=is_api, setting=self._setting)

        return named
