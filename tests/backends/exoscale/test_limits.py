"""Calls that are refused for their number: waited for in place, bought in the end."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.backend import ExoscaleBackend
from ollama_proxy.base.errors import BackendError, OutcomeUnknownError, RateLimitError
from ollama_proxy.core.lifecycle.record import LaunchId
from tests.backends.exoscale.rig import Rig
from tests.fakes.exoscale.server import KEY, SECRET

FIRST = LaunchId("l0123456789abcdef")
LOOKS, TWIN_LOOK = 2, 1  # once a launch; before each try to buy, always fresh


UNDER_WAY: list[str] = []
"""The calls that are sent and not answered yet: cancelling a start ends none."""


@pytest.fixture(autouse=True)
def note_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    call = ExoscaleApi._call

    def noted(self: ExoscaleApi, operation: str, arguments: dict[str, Any]) -> Any:
        UNDER_WAY.append(operation)
        try:
            return call(self, operation, arguments)
        finally:
            UNDER_WAY.remove(operation)

    monkeypatch.setattr(ExoscaleApi, "_call", noted)


def every(n: int) -> Callable[[int], bool]:
    return lambda number: number % n == 0


async def seconds_to_purchase(
    rig: Rig, backend: ExoscaleBackend, limit_s: float
) -> float:
    """Start as the controller does, within 120 s each, in the rig's time."""
    begun_at, pause_s = rig.clock.now(), 1.0
    while not rig.cloud.bought and rig.clock.now() - begun_at < limit_s:
        called_at = rig.clock.now()
        starting = asyncio.ensure_future(backend.start(FIRST))
        while not starting.done() and rig.clock.now() - called_at < 120.0:
            await asyncio.sleep(0.005)
        starting.cancel()
        (failure,) = await asyncio.gather(starting, return_exceptions=True)
        while UNDER_WAY:  # the rig's clock jumps on, and an answer takes real time
            await asyncio.sleep(0.005)
        if failure is not None:
            assert isinstance(failure, BackendError | asyncio.CancelledError)
            await rig.clock.sleep(pause_s)
            pause_s = min(60.0, pause_s * 2.0)
    return rig.clock.now() - begun_at


@pytest.mark.parametrize(
    ("n", "retry_after", "within_s"),
    [
        (3, "1", 12.0),
        (2, "1", 20.0),
        (3, "5", 50.0),
        (2, None, 25.0),
        (2, "10", 150.0),
        (3, "45", 1500.0),
        (2, "soon", 25.0),
    ],
)
async def test_a_launch_is_bought_though_calls_are_limited(
    rig: Rig, n: int, retry_after: str | None, within_s: float
) -> None:
    rig.server.limit, rig.server.retry_after = every(n), retry_after
    backend = rig.open()
    took_s = await seconds_to_purchase(rig, backend, 1800.0)
    await backend.aclose()

    assert rig.cloud.bought == 1
    assert took_s < within_s
    assert rig.server.hasty == []


async def test_what_was_done_is_not_done_again(rig: Rig) -> None:
    rig.server.limit = every(2)
    backend = rig.open()
    await backend.start(FIRST)
    await backend.aclose()
    served = rig.server.calls[::2]

    assert served.count("list-instances") == LOOKS + TWIN_LOOK
    assert served.count("list-instance-types") == 1
    assert served.count("create-security-group") == 1
    assert rig.server.calls.count("create-instance") <= 2


async def test_a_start_that_is_cut_short_goes_on_where_it_was(rig: Rig) -> None:
    rig.server.always["create-instance"] = "429"
    backend = rig.open()
    for _ in range(2):
        with pytest.raises(RateLimitError):
            await backend.start(FIRST)
    await backend.aclose()
    calls = rig.server.calls

    assert calls.count("list-instances") == LOOKS + 2 * TWIN_LOOK
    assert calls.count("list-templates") == 2
    assert calls.count("create-security-group") == 1


async def test_an_api_that_takes_no_call_ends_in_an_error_that_says_so(
    rig: Rig,
) -> None:
    rig.server.limit = lambda _number: True
    backend = rig.open()
    begun_at = rig.clock.now()
    with pytest.raises(RateLimitError, match=r"list_instances.*got 429.*how often"):
        await backend.start(FIRST)
    await backend.aclose()

    assert 70.0 < rig.clock.now() - begun_at <= 76.0
    assert rig.cloud.bought == 0


async def test_what_asks_for_more_than_a_minute_is_not_waited_for_in_place(
    rig: Rig,
) -> None:
    rig.server.limit, rig.server.retry_after = lambda number: number == 1, "200"
    backend = rig.open()
    begun_at = rig.clock.now()
    with pytest.raises(RateLimitError, match="for 200 s"):
        await backend.start(FIRST)
    refused_s = rig.clock.now() - begun_at
    with pytest.raises(RateLimitError):
        await backend.start(FIRST)
    sent_meanwhile = len(rig.server.calls)
    took_s = await seconds_to_purchase(rig, backend, 600.0)
    await backend.aclose()

    assert refused_s < 5.0
    assert sent_meanwhile == 1
    assert took_s < 260.0
    assert rig.server.hasty == []


async def test_one_refusal_makes_every_call_to_that_zone_wait(
    rig: Rig,
) -> None:
    opened = ExoscaleApi(
        "at-vie-2",
        endpoint=rig.server.url,
        key=KEY,
        secret=SECRET,
        clock=rig.clock,
        sleep=rig.clock.sleep,
    )
    rig.server.limit, rig.server.retry_after = lambda number: number == 1, "30"
    await asyncio.gather(*(opened.call("list_instances") for _ in range(3)))
    await opened.call("list_instances")
    opened.close()

    assert rig.server.calls.count("list-instances") <= 6


async def test_a_refused_purchase_is_not_taken_for_a_lost_one(rig: Rig) -> None:
    rig.server.always["create-instance"] = "429"
    backend = rig.open()
    with pytest.raises(RateLimitError):
        await backend.start(FIRST)
    rig.server.always.clear()
    again = rig.open()
    await again.start(FIRST)
    await backend.aclose()
    await again.aclose()

    assert rig.cloud.bought == 1


async def test_a_purchase_that_is_lost_after_a_refusal_is_sent_only_once(
    rig: Rig,
) -> None:
    rig.server.script["create-instance"] = ["429", "429", "lost-after"]
    backend = rig.open()
    with pytest.raises(OutcomeUnknownError):
        await backend.start(FIRST)
    await backend.start(FIRST)
    await backend.aclose()

    assert rig.cloud.bought == 1
