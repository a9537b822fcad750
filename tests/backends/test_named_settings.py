"""Whatever a cloud answers to a call: the error names setting, value and what to do."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from ollama_proxy.backends.base.timing import CloudTiming
from ollama_proxy.backends.exoscale.advice import values_of
from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.ovh.rest import RestDriver
from ollama_proxy.base.errors import BackendError
from tests.backends.fly.rig import UNPACED
from tests.virtual_time import JumpingClock

SECRET = "s3cr3t-of-the-test"
PAGE = (
    "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head>"
    "<body><h1>nginx</h1></body></html>"
)
WORDS = '{"message": "no such thing", "error": "no such thing"}'
STATUSES = (400, 401, 403, 404, 409, 412, 418, 422, 429, 500, 502, 503)
BODIES = {"JSON": WORDS, "a page": PAGE, "nothing": "", "a list": "[1]"}
FAULTS: dict[str, bytes] = {}


def answer(status: int, body: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status} Said\r\nContent-Length: {size}\r\nConnection: close\r\n"
    return f"{head}\r\n{body}".encode()


for number in STATUSES:
    for kind, text in BODIES.items():
        FAULTS[f"{number}, {kind}"] = answer(number, text)
FAULTS |= {
    "200, a page": answer(200, PAGE),
    "200, half of JSON": answer(200, '{"instances": [{"id'),
    "200, cut off": answer(200, '{"instances": [', length=999),
    "200, a number": answer(200, "17"),
    "a reset": b"",
}
RAW = ("<html", "<body", "traceback", "{", "}", "jsondecode", "urllib3", SECRET.lower())
TO_DO = re.compile(
    r"\b(?:check|set|ask|try|tried|asked|look|wait|see to|remove|change|mend|raise)\b"
)


@contextlib.asynccontextmanager
async def answering(said: bytes | None) -> AsyncIterator[str]:
    """Answer every request with these bytes, or never; yield the URL."""
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.read(65536)
            if said is None:
                await ended.wait()
            elif not said:
                writer.transport.abort()
            writer.write(said or b"")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        server.close()


Calls = dict[str, Callable[[], Awaitable[Any]]]
NOWHERE = "11111111-1111-4111-8111-111111111111"


@contextlib.asynccontextmanager
async def exoscale(url: str, timing: CloudTiming) -> AsyncIterator[Calls]:
    settings = ExoscaleSettings()
    clock = JumpingClock()
    api = ExoscaleApi(
        "at-vie-2",
        endpoint=f"{url}/v2",
        key="EXOkey",
        secret=SECRET,
        clock=clock,
        sleep=clock.sleep,
        values=values_of(settings),
        timing=timing,
    )
    arguments: dict[str, dict[str, Any]] = {
        "list_instance_types": {},
        "list_templates": {"visibility": "public"},
        "list_quotas": {},
        "list_instances": {},
        "list_security_groups": {"visibility": "private"},
        "list_events": {},
        "get_instance": {"id": NOWHERE},
        "get_operation": {"id": NOWHERE},
        "create_security_group": {"name": "mine"},
        "add_rule_to_security_group": {"id": NOWHERE},
        "create_instance": {"name": "mine"},
        "start_instance": {"id": NOWHERE},
        "stop_instance": {"id": NOWHERE},
        "update_instance": {"id": NOWHERE, "labels": {}},
        "delete_instance": {"id": NOWHERE},
    }

    def calling(name: str, given: dict[str, Any]) -> Callable[[], Awaitable[Any]]:
        return lambda: api.call_once(name, **given)

    yield {name: calling(name, given) for name, given in arguments.items()}
    api.close()


@contextlib.asynccontextmanager
async def ovh(url: str, timing: CloudTiming) -> AsyncIterator[Calls]:
    driver = RestDriver("GRA", url=url, token=SECRET, timing=timing)
    calls: Calls = {
        "whoami": driver.whoami,
        "flavors": driver.flavors,
        "apps": driver.apps,
        "app": lambda: driver.app(NOWHERE),
        "start": lambda: driver.start(NOWHERE),
        "stop": lambda: driver.stop(NOWHERE),
        "delete": lambda: driver.delete(NOWHERE, force=False),
        "label": lambda: driver.label(NOWHERE, "a", "b"),
        "create": lambda: driver._call("POST", "/v1/app", body={}),
    }
    yield calls
    await driver.aclose()


@contextlib.asynccontextmanager
async def fly(url: str, timing: CloudTiming) -> AsyncIterator[Calls]:
    clock = JumpingClock()
    api = FlyApi(
        "an-app",
        url=url,
        token=SECRET,
        clock=clock,
        sleep=clock.sleep,
        timing=timing,
    )
    calls: Calls = {
        "machines": api.machines,
        "machine": lambda: api.machine("17"),
        "create": lambda: api.create("name", "iad", {}),
        "start": lambda: api.start("17", "nonce"),
        "stop": lambda: api.stop("17", "nonce"),
        "volumes": api.volumes,
        "create_volume": lambda: api.create_volume("v", "iad", 8, guest={}),
        "delete_volume": lambda: api.delete_volume("v"),
        "addresses": api.addresses,
        "assign": lambda: api.assign("v6"),
        "show_app": api.show_app,
        "create_app": lambda: api.create_app("personal"),
        "token": api.token,
        "all_regions": api.all_regions,
    }
    yield calls
    await api.aclose()


CLOUDS = {
    "exoscale": (exoscale, re.compile(r"EXOSCALE_[A-Z_]+"), "at-vie-2|127.0.0.1"),
    "ovh": (ovh, re.compile(r"OVH_[A-Z_]+"), "GRA|127.0.0.1"),
    "fly": (fly, re.compile(r"FLY_[A-Z_]+"), "an-app|127.0.0.1"),
}


async def faults_of(
    cloud: str, said: bytes | None, timing: CloudTiming = UNPACED
) -> dict[str, str]:
    """Return the faults of each call's error message."""
    opened, setting, value = CLOUDS[cloud]
    wrong = {}
    async with answering(said) as url, opened(url, timing) as calls:
        for name, call in calls.items():
            try:
                await call()
            except BackendError as error:
                if lacks := lacking(str(error), setting, value):
                    wrong[name] = f"{lacks}: {error}"
            except Exception as error:
                wrong[name] = f"it surprises: {error!r}"
    return wrong


def lacking(told: str, setting: "re.Pattern[str]", value: str) -> str:
    """Return what a sentence lacks, or has that it must not have."""
    if raw := [one for one in RAW if one in told.lower()]:
        return f"it is raw ({raw})"
    if setting.search(told) is None:
        return "it names no setting"
    if re.search(value, told) is None:
        return "it names no value"
    return "" if TO_DO.search(told) else "it does not say what to do"


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("cloud", CLOUDS)
async def test_an_error_names_setting_and_value_and_what_to_do(
    cloud: str, name: str
) -> None:
    assert await faults_of(cloud, FAULTS[name]) == {}


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_an_answer_that_does_not_come_is_told_likewise(
    cloud: str,
) -> None:
    impatient = replace(UNPACED, connect_s=0.1, call_s=0.1)

    assert await faults_of(cloud, None, impatient) == {}


@pytest.mark.parametrize("cloud", CLOUDS)
async def test_an_address_without_tls_is_told_likewise(cloud: str) -> None:
    opened, setting, value = CLOUDS[cloud]
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(answering(answer(200, "{}")))
        url = url.replace("http:", "https:")
        calls = await stack.enter_async_context(opened(url, UNPACED))
        for call in calls.values():
            with pytest.raises(BackendError) as caught:
                await call()
            assert lacking(str(caught.value), setting, value) == ""
