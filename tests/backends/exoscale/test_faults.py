"""Everything that may go wrong at Exoscale: one purchase at most, none left."""

import asyncio
import collections
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ollama_proxy.base.errors import BackendError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.simulator.server import Manners
from tests.backends.exoscale.rig import OWNER, Rig, exoscale_rig
from tests.fakes.exoscale.cloud import Timing, new_id
from tests.fakes.exoscale.server import KEY
from tests.proxy import HURRIED, RunningProxy, generate, running_proxy
from tests.virtual_time import pass_time


@dataclass(frozen=True, slots=True)
class Misfortune:
    """One fault: its set-up, the event once ready, and the expected outcome.

    ``serves``: waiting requests are answered by an instance in the end.
    """

    arrange: Callable[[Rig], None] = lambda _rig: None
    strike: Callable[[Rig], Awaitable[None]] | None = None
    serves: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    says: str = ""

    @property
    def strikes(self) -> bool:
        """Whether it comes when an instance is up, which some requests may see."""
        return self.strike is not None

    @property
    def statuses(self) -> set[int]:
        """How requests may be answered."""
        return {200, 503} if self.strikes else {200 if self.serves else 503}


def script(**calls: list[str]) -> Callable[[Rig], None]:
    """Return what makes the next calls of some operations go wrong."""
    planned = {name.replace("_", "-"): list(faults) for name, faults in calls.items()}
    return lambda rig: rig.server.script.update(planned)


def always(operation: str, fault: str) -> Callable[[Rig], None]:
    return lambda rig: rig.server.always.update({operation: fault})


def cloud(**values: object) -> Callable[[Rig], None]:
    def arrange(rig: Rig) -> None:
        for name, value in values.items():
            setattr(rig.cloud, name, value)

    return arrange


def guests(**values: object) -> Callable[[Rig], None]:
    def arrange(rig: Rig) -> None:
        for name, value in values.items():
            setattr(rig.guests, name, value)

    return arrange


def timing(**values: float) -> Callable[[Rig], None]:
    def arrange(rig: Rig) -> None:
        for name, value in values.items():
            setattr(rig.cloud.timing, name, value)

    return arrange


def limited(
    which: Callable[[int], bool], retry_after: str = "1"
) -> Callable[[Rig], None]:
    """Return what refuses calls for their number, counted from the first on."""

    def arrange(rig: Rig) -> None:
        rig.server.limit, rig.server.retry_after = which, retry_after

    return arrange


def moved_since(rig: Rig) -> None:
    """Leave the group of an earlier launch, with the address of that time."""
    rule: dict[str, object] = {"id": new_id(), "flow-direction": "ingress"}
    rule |= {"protocol": "tcp", "network": "192.0.2.1/32"}
    rule |= {"start-port": 443, "end-port": 443}
    group_id, name = new_id(), f"ollama-proxy-{OWNER}"
    rig.cloud.groups[group_id] = {"id": group_id, "name": name, "rules": [rule]}


def shared(rig: Rig) -> None:
    rig.cloud.source_ip, ours = "192.0.2.66", rig.cloud.source_ip
    rig.clock.ahead_s += 3600.0
    rig.cloud.note("delete-template", "at-vie-2", KEY)
    rig.clock.ahead_s -= 3600.0
    rig.cloud.source_ip = ours


def skewed(rig: Rig) -> None:
    rig.clock.ahead_s -= 7200.0
    rig.server.skew_s = 7200.0


async def dies(rig: Rig) -> None:
    for one in rig.cloud.paid:
        one.gone_at = rig.cloud.now()


async def powers_off(rig: Rig) -> None:
    for one in rig.cloud.paid:
        one.stopped_at = rig.cloud.now()


async def is_usurped(rig: Rig) -> None:
    """The machine goes, and its address answers for a stranger."""
    for one in rig.cloud.paid:
        await rig.guests.usurp(one.id)


def runs_another(rig: Rig) -> None:
    rig.begun_elsewhere("aaaaaaaaaaaaaaaa", ELSEWHERE)


def runs_a_copy(rig: Rig) -> None:
    rig.begun_elsewhere(OWNER, ELSEWHERE)
    rig.remembers = lambda launch_id: launch_id != ELSEWHERE


ELSEWHERE = LaunchId("laaaaaaaaaaaaaaaa")
FALL_BACK = {"fallback_zones": "de-fra-1", "fallback_types": "gpu3.small"}
MISFORTUNES = {
    "none": Misfortune(),
    "the model is beside the GPU": Misfortune(guests(manners=Manners(vram_share=0.0))),
    "the stages are no stages": Misfortune(guests(told_stages="<html>\n" * 9000)),
    "the key lacks the right": Misfortune(
        always("create-instance", "403"), serves=False, says="create-instance"
    ),
    "the answer to the purchase is lost": Misfortune(
        script(create_instance=["lost-after"])
    ),
    "the purchase is lost on its way": Misfortune(
        script(create_instance=["lost-before"])
    ),
    "the answer to the purchase names no instance": Misfortune(
        script(create_instance=["no-reference"])
    ),
    "the answer to the group's making names no group": Misfortune(
        script(create_security_group=["no-reference"], get_operation=["no-reference"])
    ),
    "500 after the purchase": Misfortune(script(create_instance=["500-after"])),
    "a gateway's 502 after the purchase": Misfortune(
        script(create_instance=["html-502-after"])
    ),
    "the lists trail and the answer is lost": Misfortune(
        lambda rig: (
            timing(list_lag_s=60.0)(rig),
            script(create_instance=["lost-after"])(rig),
        )[0]
    ),
    "a page of the lists is lost and so is the answer": Misfortune(
        script(create_instance=["lost-after"], list_instances=["page-lost"] * 3)
    ),
    "it boots slowly": Misfortune(timing(boot_s=200.0)),
    "it never boots": Misfortune(timing(boot_s=1e9), serves=False, says="no progress"),
    "it can't be set up": Misfortune(
        guests(stages=["failed:driver"]),
        serves=False,
        says="could not set up its driver",
    ),
    "a step fails and keeps its last lines": Misfortune(
        guests(stages=["failed:driver"], report=b"Get:1\nE: no package nvidia-x\n"),
        serves=False,
        says="its driver: E: no package nvidia-x",
    ),
    "a step fails and its last lines do not come": Misfortune(
        guests(stages=["failed:driver"], report="cut"),
        serves=False,
        says="could not set up its driver",
    ),
    "a step fails before the guard answers": Misfortune(
        guests(mute=True),
        serves=False,
        says="nothing can be fetched from the instance before its guard answers",
    ),
    "it dies when ready": Misfortune(strike=dies),
    "it powers off when ready": Misfortune(strike=powers_off),
    "its address is a stranger's": Misfortune(strike=is_usurped),
    "three deletions fail": Misfortune(
        script(delete_instance=["500", "lost-before", "429"])
    ),
    "a deletion is lost after it acted": Misfortune(
        script(delete_instance=["lost-after"])
    ),
    "the lists are down for a while": Misfortune(
        script(list_instances=["503", "503", "lost-before"])
    ),
    "calls are limited": Misfortune(script(create_instance=["429", "429"])),
    "every third call is one too many": Misfortune(limited(lambda n: n % 3 == 0)),
    "every second call is one too many": Misfortune(limited(lambda n: n % 2 == 0)),
    "calls are limited for minutes": Misfortune(
        limited(lambda n: 3 < n < 10, retry_after="45")
    ),
    "our address changes after the purchase": Misfortune(
        lambda rig: rig.server.moves_after.update({"create-instance": "203.0.113.9"})
    ),
    "our address is another than at the last launch": Misfortune(moved_since),
    "the log of events trails": Misfortune(cloud(event_lag_s=120.0)),
    "the log of events tells nothing": Misfortune(cloud(event_lag_s=1e9)),
    "the log of events can't be read": Misfortune(always("list-events", "403")),
    "another program uses the key": Misfortune(shared),
    "every call is one too many": Misfortune(
        always("create-instance", "429"), serves=False, says="429"
    ),
    "there is no quota": Misfortune(
        cloud(quotas={"gpua5000": (0, 0)}), serves=False, says="quota"
    ),
    "there is no room": Misfortune(
        cloud(create_fails="409"), serves=False, says="no capacity"
    ),
    "there is no room, which is told later": Misfortune(
        cloud(create_fails="error"), serves=False, says="Exoscale made no a5000"
    ),
    "there is no room, and nothing is left": Misfortune(
        cloud(create_fails="absent"),
        serves=False,
        says="in at-vie-2: unavailable",
    ),
    "there is no room, but elsewhere": Misfortune(
        cloud(quotas={"gpua5000": (0, 0)}), settings=FALL_BACK
    ),
    "the type is not authorised": Misfortune(
        cloud(authorized=False), serves=False, says="not offered"
    ),
    "the zone has no such type": Misfortune(
        settings={"zone": "de-fra-1"}, serves=False, says="gpu3.small"
    ),
    "there is no such zone": Misfortune(
        settings={"zone": "at-vie-9"}, serves=False, says="there is no zone 'at-vie-9'"
    ),
    "there is no such template": Misfortune(
        settings={"template": "Ubuntu"}, serves=False, says="Linux Ubuntu 24.04 LTS"
    ),
    "the clock is wrong": Misfortune(skewed, serves=False, says="clock"),
    "another owner runs an instance": Misfortune(runs_another),
    "a proxy on a copy of the state folder runs an instance": Misfortune(
        runs_a_copy, serves=False, says="another proxy uses a copy of this state folder"
    ),
    "looks fail while it is up": Misfortune(
        script(get_instance=["500", "429", "lost-before", "html-502-after"])
    ),
}


async def ask(proxy: RunningProxy) -> tuple[int, str]:
    async with proxy.session.post(
        f"{proxy.url}/api/generate", json=generate()
    ) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("waiting", [0, 1, 50])
@pytest.mark.parametrize("name", MISFORTUNES)
async def test_one_is_bought_at_most_and_none_is_left(
    tmp_path: Path, name: str, waiting: int
) -> None:
    misfortune = MISFORTUNES[name]
    async with exoscale_rig(
        tmp_path, Timing(operation_s=1.0, leave_s=20.0, group_lag_s=60.0)
    ) as rig:
        stranger = rig.cloud.stranger()
        misfortune.arrange(rig)
        hastening = asyncio.ensure_future(
            pass_time(rig.clock, 10.0, every_s=0.01)  # a thousand times faster
        )
        async with running_proxy(
            tmp_path / "proxy",
            timing=HURRIED,
            backend=rig.open(**misfortune.settings),
            clock=rig.clock,
            OLLAMA_MODEL="tiny",
            OLLAMA_PROXY_HOLD="60s",
            OLLAMA_PROXY_FAILURE_LIMIT="1",
            OLLAMA_PROXY_IDLE_TIMEOUT="2h",
        ) as proxy:
            answers = await _live_through(rig, proxy, misfortune, waiting)
            proxy.parts.pool.stop()
            await proxy.until(lambda: not rig.paid, within_s=60.0)
            await proxy.until(lambda: proxy.state in {"cold", "cool-down"}, 60.0)
            others = [one for one in rig.others if rig.cloud.exists(one)]
            await _sweep(rig, proxy)
        hastening.cancel()
        spared = [stranger, *rig.others]
        ours = [i for i in rig.cloud.instances.values() if i not in spared]
        launches = collections.Counter(one.labels["launch"] for one in ours)

    assert rig.guests.told_to_strangers == []
    assert set(launches.values()) <= {1}
    assert rig.cloud.exists(stranger)
    assert others == rig.others
    assert {status for status, _ in answers} <= misfortune.statuses
    assert all(misfortune.says in text for _, text in answers)


async def _sweep(rig: Rig, proxy: RunningProxy) -> None:
    """Sweep until nothing of ours is left: no instance, no security group.

    By then a proxy on a copy of our folder has ended, and its lease is over.
    """
    twins = [one for one in rig.others if one.labels["owner"] == f"o{OWNER}"]
    for one in twins:
        one.labels["lease"] = "t1"
    strangers = [f"ollama-proxy-{one.labels['owner'][1:]}" for one in rig.others]
    kept = set(strangers) - {f"ollama-proxy-{OWNER}"}
    async with asyncio.timeout(60):
        while any(map(rig.cloud.exists, twins)) or _groups(rig) != kept:
            with contextlib.suppress(BackendError):
                await proxy.parts.pool.sweeper.sweep(thorough=True)
            await asyncio.sleep(0.01)


def _groups(rig: Rig) -> set[str]:
    return {str(group["name"]) for group in rig.cloud.groups.values()}


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
        await misfortune.strike(rig)
        proxy.parts.pool.check_now()
        await proxy.until(lambda: proxy.state != "ready", within_s=60.0)
        answers += await asyncio.gather(*(ask(proxy) for _ in range(waiting)))
    return answers
