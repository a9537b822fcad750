"""A path goes to its handler in linear time, whatever is in it."""

import time

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from ollama_proxy.server.aiohttp.dispatcher import Dispatcher


async def known(_request: web.Request) -> web.Response:
    return web.Response(text="known")


async def anything(_request: web.Request) -> web.Response:
    return web.Response(text="anything")


async def no_answer(_request: web.Request) -> None:
    """Leave ``Expect`` alone."""


@pytest.fixture
def dispatcher() -> Dispatcher:
    made = Dispatcher()
    made.add_route("GET", "/known", known)
    made.add_route("DELETE", "/own/{name:.*}", known)
    made.add_any_path(anything, expect_handler=no_answer)
    return made


async def handler_of(dispatcher: Dispatcher, method: str, path: str) -> object:
    found = await dispatcher.resolve(make_mocked_request(method, path))
    return found.handler


@pytest.mark.parametrize(
    "path",
    ["/", "/other", "/a/b", "/" * 200_000, "/a" * 100_000, "/a%0Ab", "/%2F" * 5000],
)
async def test_any_path_has_a_handler(dispatcher: Dispatcher, path: str) -> None:
    assert await handler_of(dispatcher, "GET", path) is anything


async def test_a_path_that_is_known_goes_to_its_own(dispatcher: Dispatcher) -> None:
    assert await handler_of(dispatcher, "GET", "/known") is known
    assert await handler_of(dispatcher, "DELETE", "/own/a/b/c") is known


async def test_a_method_that_a_known_path_does_not_have_goes_to_the_rest(
    dispatcher: Dispatcher,
) -> None:
    assert await handler_of(dispatcher, "POST", "/known") is anything


@pytest.mark.parametrize(
    "path",
    [
        "/%2d/keys",
        "/%2D/keys",
        "/-%2fkeys",
        "/%2e/../-/keys",
        "/%73tatus",
    ],
)
async def test_an_order_is_one_by_its_path_as_it_was_written(
    dispatcher: Dispatcher, path: str
) -> None:
    """Access was judged by that path: as Ollama's, which anyone may ask for."""
    dispatcher.add_route("GET", "/-/keys", known)
    dispatcher.add_route("GET", "/-/keys/{name}", known)
    dispatcher.add_route("GET", "/status", known)

    assert await handler_of(dispatcher, "GET", path) is anything
    assert await handler_of(dispatcher, "GET", "/-/keys/a%40b") is known
    assert await handler_of(dispatcher, "GET", "/-/%6beys") is known


async def test_two_hundred_thousand_slashes_stall_nobody(
    dispatcher: Dispatcher,
) -> None:
    begun = time.process_time()
    for path in ("/" * 200_000, "/a" * 200_000, "/own" + "/" * 200_000):
        await handler_of(dispatcher, "GET", path)

    assert time.process_time() - begun < 1.0  # 7 s each, where each slash is looked at
