"""Everything that may go wrong at AI Deploy: one app, none left running."""

import asyncio
import collections
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ollama_proxy.backends.base.timing import CloudTiming
from tests.backends.ovh.rig import DRIVERS, Rig, ovh_rig
from tests.fakes.ovh.cloud import Timing
from tests.fakes.ovh.server import token_of
from tests.proxy import HURRIED, RunningProxy, generate, running_proxy
from tests.virtual_time import pass_time


@dataclass(frozen=True, slots=True)
class Misfortune:
    """One fault: its set-up, the event once ready, and the expected outcome.

    ``serves``: waiting requests are answered by an app in the end.
    """

    arrange: Callable[[Rig], None] = lambda _rig: None
    strike: Callable[[Rig], None] | None = None
    serves: bool = True
    settings: Mapping[str, object] = field(default_factory=dict)
    says: str = ""

    @property
    def statuses(self) -> set[int]:
        """How requests may be answered."""
        if self.strike is not None:
            return {200, 503}
        return {200} if self.serves else {503}


def script(**calls: list[str]) -> Callable[[Rig], None]:
    """Return what makes the next calls of some operations go wrong."""
    return lambda rig: rig.server.script.update({k: list(v) for k, v in calls.items()})


def lists(**values: object) -> Callable[[Rig], None]:
    """Return what has the pages of lists count or lie otherwise."""

    def arrange(rig: Rig) -> None:
        for name, value in values.items():
            setattr(rig.server.lists, name, value)

    return arrange


def timing(**values: float) -> Callable[[Rig], None]:
    def arrange(rig: Rig) -> None:
        for name, value in values.items():
            setattr(rig.cloud.timing, name, value)

    return arrange


def forced(state: str, replicas: int | None = None) -> Callable[[Rig], None]:
    """Return what puts every app of ours into a state that time does not change."""

    def strike(rig: Rig) -> None:
        for app in rig.cloud.paid:
            app.forced, app.replicas = state, replicas
            app.info = {"code": "APP_INTERRUPTED_BY_PLATFORM", "message": "sorry"}

    return strike


def deleted(rig: Rig) -> None:
    for app in rig.cloud.paid:
        app.changes.append((rig.cloud.now(), "delete"))


def stopped(rig: Rig) -> None:
    for app in rig.cloud.paid:
        app.changes.append((rig.cloud.now(), "stop"))


def both(*arrangements: Callable[[Rig], None]) -> Callable[[Rig], None]:
    def arrange(rig: Rig) -> None:
        for one in arrangements:
            one(rig)

    return arrange


def full(rig: Rig) -> None:
    rig.cloud.full = {"GRA"}


FALL_BACK: dict[str, object] = {
    "fallback_regions": "BHS",
    "gpu_model": "L40S",
    "region_tokens": {"BHS": token_of("BHS")},
}
MISFORTUNES = {
    "none": Misfortune(),
    "the answer to the creation is lost": Misfortune(script(create=["lost-after"])),
    "the creation is lost on its way": Misfortune(script(create=["lost-before"])),
    "a gateway's 502 after the creation": Misfortune(script(create=["html-502-after"])),
    "the lists trail and the answer is lost": Misfortune(
        both(timing(lag_s=60.0), script(create=["lost-after"]))
    ),
    "the lists are empty a few times and the answer is lost": Misfortune(
        both(lists(lie="empty", times=3), script(create=["lost-after"]))
    ),
    "another page comes first and the answer is lost": Misfortune(
        both(lists(first=1, given=2), script(create=["lost-after"]))
    ),
    "payment is missing": Misfortune(
        script(create=["402"]), serves=False, says="payment"
    ),
    "the project is suspended": Misfortune(
        script(create=["403"]), serves=False, says="do not allow"
    ),
    "the lists are down for a while": Misfortune(
        script(list=["503", "503", "lost-before"])
    ),
    "looks fail while it is up": Misfortune(script(get=["500", "429", "lost-before"])),
    "an ingress on the way knows no app": Misfortune(
        script(get=["html-404", "html-404"])
    ),
    "calls are limited": Misfortune(script(create=["429", "429"])),
    "it waits in line for ever": Misfortune(full, serves=False, says="no room"),
    "it starts slowly": Misfortune(timing(queue_s=300.0, scale_s=300.0)),
    "it is stopped slowly": Misfortune(timing(stop_s=400.0)),
    "what is deleted shows for long": Misfortune(timing(deleted_s=600.0)),
    "three stops fail": Misfortune(
        script(stop=["500", "lost-before", "429"], delete=["500", "lost-before", "429"])
    ),
    "a stop is lost after it acted": Misfortune(
        script(stop=["lost-after"], delete=["lost-after"])
    ),
    "it fails when ready": Misfortune(strike=forced("FAILED", 0)),
    "it fails and something is left": Misfortune(strike=forced("FAILED", 1)),
    "the platform has an error when ready": Misfortune(strike=forced("ERROR")),
    "the platform stops it": Misfortune(strike=stopped),
    "somebody deletes it": Misfortune(strike=deleted),
    "it is scaled to zero": Misfortune(strike=forced("STANDBY")),
    "the gateway does not know the token": Misfortune(
        strike=lambda rig: setattr(rig.server, "knows_tokens", False)
    ),
}


IMPATIENT = CloudTiming(command_s=1.0)
"""Gives up a call to the platform sooner."""


async def ask(proxy: RunningProxy) -> tuple[int, str]:
    async with proxy.session.post(
        f"{proxy.url}/api/generate", json=generate()
    ) as answer:
        return answer.status, await answer.text()


WAYS = [
    ("stop", "rest", 0),
    ("stop", "rest", 1),
    ("stop", "rest", 50),
    ("stop", "cli", 1),
    ("delete", "rest", 1),
]
CASES = [(name, *way) for name in MISFORTUNES for way in WAYS]


@pytest.mark.parametrize(("name", "idle_action", "driver", "waiting"), CASES)
async def test_one_app_runs_at_most_and_none_is_left(
    tmp_path: Path, name: str, idle_action: str, driver: str, waiting: int
) -> None:
    assert driver in DRIVERS
    misfortune = MISFORTUNES[name]
    async with ovh_rig(tmp_path, driver, Timing(scale_s=5.0, stop_s=20.0)) as rig:
        rig.timing = IMPATIENT
        stranger = rig.cloud.stranger()
        misfortune.arrange(rig)
        step_s = 3.0 if driver == "cli" else 10.0
        hastening = asyncio.ensure_future(
            pass_time(rig.clock, step_s, every_s=0.01, waits_for_commands=True)
        )
        async with running_proxy(
            tmp_path / "proxy",
            timing=HURRIED,
            backend=rig.open(idle_action=idle_action, **misfortune.settings),
            clock=rig.clock,
            OLLAMA_MODEL="tiny",
            OLLAMA_PROXY_HOLD="60s",
            OLLAMA_PROXY_FAILURE_LIMIT="1",
            OLLAMA_PROXY_IDLE_TIMEOUT="5h",
            OLLAMA_PROXY_START_TIMEOUT="40m",
        ) as proxy:
            answers = await _live_through(rig, proxy, misfortune, waiting)
            proxy.parts.pool.stop()
            await proxy.until(lambda: not rig.cloud.paid, within_s=60.0)
            await proxy.until(lambda: proxy.state in {"cold", "cool-down"}, 60.0)
        hastening.cancel()
        ours = [app for app in rig.cloud.apps.values() if app is not stranger]
        launches = collections.Counter(a.labels["ollama-proxy-launch"] for a in ours)

    assert set(launches.values()) <= {1}
    assert [what for _, what in stranger.changes] == ["start"]
    assert {status for status, _ in answers} <= misfortune.statuses
    assert all(misfortune.says in text for _, text in answers)


async def _live_through(
    rig: Rig, proxy: RunningProxy, misfortune: Misfortune, waiting: int
) -> list[tuple[int, str]]:
    """Ask, let the fault strike once it is ready, and ask again."""
    if waiting == 0:
        await proxy.parts.pool.wake()
    answers = await asyncio.gather(*(ask(proxy) for _ in range(waiting)))
    over = {"ready", "cool-down"} if misfortune.serves else {"cool-down", "stopping"}
    await proxy.until(lambda: proxy.state in over, within_s=60.0)
    if misfortune.strike is not None:
        misfortune.strike(rig)
        proxy.parts.pool.check_now()
        await proxy.until(lambda: proxy.state != "ready", within_s=60.0)
        answers += await asyncio.gather(*(ask(proxy) for _ in range(waiting)))
    return answers


async def test_without_room_another_region_is_tried_next(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path, "rest", Timing(scale_s=5.0, stop_s=20.0)) as rig:
        rig.timing = IMPATIENT
        rig.cloud.full = {"GRA"}
        hastening = asyncio.ensure_future(pass_time(rig.clock, 10.0, every_s=0.01))
        async with running_proxy(
            tmp_path / "proxy",
            timing=HURRIED,
            backend=rig.open(**FALL_BACK),
            clock=rig.clock,
            OLLAMA_PROXY_HOLD="60s",
            OLLAMA_PROXY_IDLE_TIMEOUT="5h",
            OLLAMA_MODEL="tiny",
        ) as proxy:
            status, _ = await ask(proxy)
            paid = [app.region for app in rig.cloud.paid]
            proxy.parts.pool.stop()
            await proxy.until(lambda: not rig.cloud.paid, within_s=60.0)
        hastening.cancel()

    assert (status, paid) == (200, ["BHS"])
