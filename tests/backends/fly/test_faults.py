"""Everything that may go wrong at Fly: one machine at most, none left running."""

import asyncio
import collections
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ollama_proxy.core.lifecycle.record import LaunchId
from tests.backends.fly.rig import IMAGE, OWNER, Rig, fly_rig
from tests.fakes.fly.cloud import FakeMachine, FakeVolume, Timing
from tests.proxy import HURRIED, RunningProxy, generate, running_proxy
from tests.virtual_time import pass_time

pytestmark = pytest.mark.usefixtures("without_pace")


@dataclass(frozen=True, slots=True)
class Misfortune:
    """One fault: its set-up, the event once ready, and the expected outcome.

    - ``serves``: waiting requests are answered by a machine in the end.
    - ``between``: happens while the machine is stopped, before the next request.
    - ``mended``: happens after that request was served, or refused if
      ``refused_between``.
    - ``others``: another deployment of this product is in the app, too.
    """

    arrange: Callable[[Rig], None] = lambda _rig: None
    strike: Callable[[Rig], None] | None = None
    between: Callable[[Rig], None] | None = None
    mended: Callable[[Rig], None] = lambda _rig: None
    serves: bool = True
    settings: Mapping[str, object] = field(default_factory=dict)
    says: str = ""
    refused_between: bool = False
    others: bool = False

    @property
    def statuses(self) -> set[int]:
        """How requests may be answered."""
        if self.strike is not None or self.refused_between:
            return {200, 503}
        return {200} if self.serves else {503}


def script(**calls: list[str]) -> Callable[[Rig], None]:
    """Return what makes the next calls of some operations go wrong."""
    named = {f"Machines_{k}": list(v) for k, v in calls.items()}
    return lambda rig: rig.server.script.update({k: list(v) for k, v in named.items()})


def slowly(**values: float) -> Callable[[Rig], None]:
    def arrange(rig: Rig) -> None:
        for name, value in values.items():
            setattr(rig.cloud.timing, name, value)

    return arrange


def forced(state: str) -> Callable[[Rig], None]:
    """Return what puts every machine of ours into a state."""

    def strike(rig: Rig) -> None:
        for machine in rig.cloud.paid:
            machine.forced = state

    return strike


def changed(what: str) -> Callable[[Rig], None]:
    def strike(rig: Rig) -> None:
        for machine in rig.cloud.paid:
            rig.cloud.change(machine, what)

    return strike


def ends(code: int, **told: object) -> Callable[[Rig], None]:
    """Return what ends every machine of ours from within."""

    def strike(rig: Rig) -> None:
        for machine in rig.cloud.paid:
            rig.cloud.exits(machine, code, **told)

    return strike


def without_events(rig: Rig) -> None:
    rig.cloud.shows_events = False


def both(*arrangements: Callable[[Rig], None]) -> Callable[[Rig], None]:
    def arrange(rig: Rig) -> None:
        for one in arrangements:
            one(rig)

    return arrange


def full(*regions: str) -> Callable[[Rig], None]:
    return lambda rig: rig.cloud.full.update(regions)


def full_host(rig: Rig) -> None:
    for volume in rig.cloud.volumes():
        volume.host_is_full = True


def volumes_script(**calls: list[str]) -> Callable[[Rig], None]:
    """Return what makes the next calls for volumes go wrong."""
    return lambda rig: rig.server.script.update(
        {
            {"make": "Volumes_create", "delete": "Volume_delete"}.get(
                name, f"Volumes_{name}"
            ): list(faults)
            for name, faults in calls.items()
        }
    )


def no_copies(rig: Rig) -> None:
    rig.cloud.copies_refused = True


def host_lost(rig: Rig) -> None:
    rig.cloud.hosts_refuse = True
    for machine in rig.app.machines.values():
        if "ollama_proxy" in machine.metadata and rig.cloud.is_there(machine):
            machine.host_status = "unreachable"


def host_back(rig: Rig) -> None:
    rig.cloud.hosts_refuse = False
    for machine in rig.app.machines.values():
        machine.host_status = "ok"


def room_again(rig: Rig) -> None:
    rig.cloud.full.clear()


def never_boots(rig: Rig) -> None:
    rig.guests.boots = False


def another_owner(name: str, *, runs: bool) -> Callable[[Rig], None]:
    """Return what gives another deployment a machine and a volume in the app."""

    def arrange(rig: Rig) -> None:
        rig.cloud.deployment(rig.app, name, "a" * 16, "l" + "1" * 16, runs=runs)

    return arrange


def a_twin(rig: Rig) -> None:
    """Let a proxy on a copy of the state folder run a machine with a volume."""
    rig.remembers = lambda launch_id: launch_id != TWIN
    rig.cloud.deployment(rig.app, "ollama-proxy-0", OWNER, TWIN, runs=True)


def a_twin_takes_it(rig: Rig) -> None:
    """Let such a proxy start what is stopped, or make one of its own in its place."""
    stopped = [one for one in rig.cloud.ours() if rig.cloud.state(one) == "stopped"]
    if not stopped:
        a_twin(rig)
        return
    stopped[0].metadata["ollama_proxy_launch"] = TWIN
    stopped[0].metadata["ollama_proxy_lease"] = f"{rig.clock.wall() + 1e9:.0f}"
    rig.cloud.change(stopped[0], "start")


def the_twin_stops(rig: Rig) -> None:
    for machine in rig.cloud.machines():
        if machine.metadata.get("ollama_proxy_launch") == TWIN:
            machine.metadata["ollama_proxy_lease"] = "0"
            rig.cloud.change(
                machine, "destroy" if machine.id in rig.cloud.others else "stop"
            )


def empty_lists(rig: Rig) -> None:
    rig.server.script["Machines_list"] = ["empty"] * 3


def payment(rig: Rig) -> None:
    rig.server.always["Machines_create"] = "422:payment method missing"


def no_right(rig: Rig) -> None:
    rig.server.always["Machines_create"] = "403:token is of another organisation"


TWIN = LaunchId("l" + "7" * 16)

MISFORTUNES = {
    "none": Misfortune(),
    "the answer to the creation is lost": Misfortune(script(create=["lost-after"])),
    "the creation is lost on its way": Misfortune(script(create=["lost-before"])),
    "a gateway's 502 after the creation": Misfortune(script(create=["html-502-after"])),
    "a 408 after the creation": Misfortune(script(create=["408-after"])),
    "empty lists are null": Misfortune(
        both(script(list=["null"] * 3), volumes_script(list=["null"] * 3))
    ),
    "the lists trail and the answer is lost": Misfortune(
        both(slowly(lag_s=60.0), script(create=["lost-after"]))
    ),
    "the list is empty": Misfortune(script(list=["empty", "empty", "empty"])),
    "a page of the list is lost and so is the answer": Misfortune(
        script(create=["lost-after"], list=["page-lost"] * 3)
    ),
    "payment is missing": Misfortune(payment, serves=False, says="billing"),
    "the token lacks the right": Misfortune(no_right, serves=False, says="FLY_API_"),
    "it is prepared for a while": Misfortune(slowly(prepare_s=9.0)),
    "a start is lost after it acted": Misfortune(script(start=["lost-after"])),
    "the lease is held by another": Misfortune(
        script(create_lease=["409:lease currently held by x, expires at 1"] * 3)
    ),
    "there is no room": Misfortune(full("fra"), serves=False, says="no room"),
    "there is room elsewhere": Misfortune(
        full("fra"), settings={"fallback_regions": "ams"}
    ),
    "there is no room when it starts": Misfortune(
        script(start=["409:could not reserve resource for machine"]),
        settings={"fallback_regions": "ams"},
    ),
    "calls are limited": Misfortune(script(create=["429", "429"], show=["429"])),
    "looks fail while it is up": Misfortune(
        script(show=["500", "html-404", "lost-before", "lost-before"])
    ),
    "it never answers": Misfortune(never_boots, serves=False, says="not be reached"),
    "it stops slowly": Misfortune(slowly(stop_s=400.0)),
    "three stops fail": Misfortune(
        script(stop=["500", "lost-before", "429"], delete=["500", "409:lease", "429"])
    ),
    "a stop is lost after it acted": Misfortune(
        script(stop=["lost-after"], delete=["lost-after"])
    ),
    "what is destroyed shows for long": Misfortune(slowly(destroyed_s=600.0)),
    "Fly's proxy stops it": Misfortune(strike=changed("stop")),
    "it fails when ready": Misfortune(strike=forced("failed")),
    "it runs out of memory": Misfortune(strike=ends(137, oom_killed=True)),
    "its program crashes, and its events can't be had": Misfortune(
        both(without_events, script(list_events=["500", "lost-before"])),
        strike=ends(1),
    ),
    "it is destroyed by somebody": Misfortune(strike=changed("destroy")),
    "it is in a state that nobody knows": Misfortune(strike=forced("dreaming")),
    "its host is out of reach for a while": Misfortune(
        strike=lambda rig: setattr(rig.cloud.paid[0], "host_status", "unreachable")
    ),
    "its host is full at the next start": Misfortune(between=full_host),
    "its host is full, and the source can't be deleted at once": Misfortune(
        between=both(full_host, volumes_script(delete=["500", "lost-after", "429"]))
    ),
    "its host is full, and the copy's answer is lost": Misfortune(
        between=both(full_host, volumes_script(make=["lost-after"]))
    ),
    "its host is full, and nothing can be copied": Misfortune(
        between=both(full_host, no_copies)
    ),
    "its region is full at the next start": Misfortune(
        between=full("fra"), mended=room_again, settings={"fallback_regions": "ams"}
    ),
    "its host can't be reached at the next start": Misfortune(
        between=host_lost, mended=host_back
    ),
    "a list of volumes is empty at the next start": Misfortune(
        between=volumes_script(list=["empty"])
    ),
    "every list is empty at the next start": Misfortune(
        between=both(
            volumes_script(list=["empty"] * 2), script(list=["empty", "empty"])
        )
    ),
    "another owner has the name, a machine that runs and a volume": Misfortune(
        another_owner("ollama-proxy-0", runs=True),
        serves=False,
        says="another deployment",
        others=True,
    ),
    "another owner has the name, and no list shows it": Misfortune(
        both(another_owner("ollama-proxy-0", runs=False), empty_lists),
        serves=False,
        says="another deployment",
        others=True,
    ),
    "another owner has a machine of another name and a volume": Misfortune(
        another_owner("ollama-proxy-7", runs=True), others=True
    ),
    "a twin runs a machine": Misfortune(
        a_twin, serves=False, says="copy of this state folder", others=True
    ),
    "a twin runs a machine, and no list shows it": Misfortune(
        both(a_twin, empty_lists),
        serves=False,
        says="copy of this state folder",
        others=True,
    ),
    "a twin starts what is stopped": Misfortune(
        between=a_twin_takes_it, mended=the_twin_stops, refused_between=True
    ),
    "the token is revoked for a while": Misfortune(
        strike=script(show=["401"] * 3, create_lease=["401"] * 2)
    ),
}


SETUP_PAUSE_S = 0.02
"""Between repeated calls: these pauses are in real time."""


async def ask(proxy: RunningProxy) -> tuple[int, str]:
    async with proxy.session.post(
        f"{proxy.url}/api/generate", json=generate()
    ) as answer:
        return answer.status, await answer.text()


WAYS = [("stop", 0), ("stop", 1), ("stop", 50), ("destroy", 1)]
CASES = [(name, *way) for name in MISFORTUNES for way in WAYS]


@pytest.mark.parametrize(("name", "idle_action", "waiting"), CASES)
async def test_one_machine_runs_at_most_and_none_is_left(
    tmp_path: Path, name: str, idle_action: str, waiting: int
) -> None:
    misfortune = MISFORTUNES[name]
    async with fly_rig(
        tmp_path, Timing(2.0, 2.0, 5.0, destroy_s=2.0, detach_s=2.0), is_paced=False
    ) as rig:
        rig.timing = replace(rig.timing, setup_pause_s=SETUP_PAUSE_S)
        is_new = not misfortune.others and (idle_action, waiting) in APP_IS_MADE
        before = await _deployed(rig, is_new=is_new)
        misfortune.arrange(rig)
        theirs = Theirs.of(rig)
        hastening = asyncio.ensure_future(pass_time(rig.clock, 2.0, every_s=0.01))
        async with running_proxy(
            tmp_path / "proxy",
            timing=HURRIED,
            backend=rig.open(idle_action=idle_action, **misfortune.settings),
            clock=rig.clock,
            OLLAMA_MODEL="tiny",
            OLLAMA_PROXY_HOLD="60s",
            OLLAMA_PROXY_FAILURE_LIMIT="1",
            OLLAMA_PROXY_IDLE_TIMEOUT="5h",
            # 2 h are 36 s here, by `pass_time`: a machine under load takes its time.
            OLLAMA_PROXY_START_TIMEOUT="2h" if misfortune.serves else "5m",
        ) as proxy:
            answers = await _live_through(rig, proxy, misfortune, waiting)
            await _rest(rig, proxy)
            if misfortune.between is not None:
                misfortune.between(rig)
                answers += [await ask(proxy)]
                misfortune.mended(rig)
                await _rest(rig, proxy)
            await _until_swept(rig, proxy)
        left = volumes_of_ours(rig)
        untouched = theirs.are_as_they_were(rig)
        theirs.leave(rig)
        await _remove(rig, idle_action, misfortune)
        hastening.cancel()
        ours = rig.cloud.ours()
        names = collections.Counter(one.name for one in ours if rig.cloud.is_there(one))

    assert rig.cloud.most_at_once <= 1
    assert set(names.values()) <= {1}
    assert untouched
    assert {status for status, _ in answers} <= misfortune.statuses, answers
    if not misfortune.refused_between:
        assert all(misfortune.says in text for _, text in answers)
    keeps = misfortune.serves and not misfortune.refused_between  # a twin may have it
    assert len(left) == 1 if keeps else len(left) <= 1, left
    assert {rig.cloud.state(one) for one in ours} <= {"destroying", "destroyed"}
    assert volumes_of_ours(rig) == []
    assert cost_of_an_hour(rig) == 8.0 * theirs.volumes_left
    assert {name: app.addresses for name, app in rig.cloud.apps.items()} == before


APP_IS_MADE = {("stop", 0), ("destroy", 1)}
"""The ways in which the app is one that `deploy` made, and nobody else is in it."""


async def _deployed(rig: Rig, *, is_new: bool) -> dict[str, dict[str, str]]:
    """Deploy into an app of our own, or of others; return what existed before.

    The volume is left to the launches, for which a faulty list of volumes is played.
    """
    if is_new:
        del rig.cloud.apps["llm"]
    else:
        rig.cloud.stranger(rig.app)
        rig.app.addresses["2a09::7"] = "v6"
    before = {name: dict(app.addresses) for name, app in rig.cloud.apps.items()}
    async with contextlib.aclosing(rig.open(volume_gb=0)) as backend:
        async for _ in backend.deploy(IMAGE):
            pass
    rig.app = rig.cloud.apps["llm"]
    assert set(rig.app.addresses.values()) == {"shared_v4", "v6"}
    return before


def volumes_of_ours(rig: Rig) -> list[FakeVolume]:
    theirs = {one.volume for one in _others(rig)}
    return [one for one in rig.cloud.volumes() if one.id not in theirs]


def cost_of_an_hour(rig: Rig) -> float:
    """Return what volumes cost in the next hour, in GB hours."""
    before = rig.cloud.gb_hours()
    rig.clock.ahead_s += 3600.0
    return round(rig.cloud.gb_hours() - before, 2)


def _others(rig: Rig) -> list[FakeMachine]:
    ours = {one.id for one in rig.cloud.ours()}
    return [one for one in rig.cloud.machines() if one.id not in ours]


@dataclass(slots=True)
class Theirs:
    """Things in the app that are not ours, as they were before our proxy."""

    was: dict[str, tuple[str, str | None]]
    volumes_left: int = 0

    @classmethod
    def of(cls, rig: Rig) -> "Theirs":
        return cls({one.id: (one.doing, one.volume) for one in _others(rig)})

    def are_as_they_were(self, rig: Rig) -> bool:
        now = Theirs.of(rig).was
        volumes = {one.id for one in rig.cloud.volumes()}
        self.volumes_left = sum(volume is not None for _, volume in self.was.values())
        return all(
            now.get(name) == was and (was[1] is None or was[1] in volumes)
            for name, was in self.was.items()
        )

    def leave(self, rig: Rig) -> None:
        """Let a twin clear what it has, as `delete` would: its owner id is ours."""
        for one in _others(rig):
            if one.metadata.get("ollama_proxy_owner") == OWNER:
                rig.cloud.change(one, "destroy")
                if one.volume is not None and one.id in self.was:
                    self.volumes_left -= 1
                    rig.app.volumes[one.volume].deleted_at = rig.cloud.now()


async def _rest(rig: Rig, proxy: RunningProxy) -> None:
    """Stop what runs, and wait until it does not any more."""
    proxy.parts.pool.stop()
    await proxy.until(lambda: not rig.cloud.paid, within_s=60.0)
    await proxy.until(lambda: proxy.state in {"cold", "cool-down"}, 15.0)


async def _until_swept(rig: Rig, proxy: RunningProxy) -> None:
    """Sweep, as every proxy does every ten minutes, until nothing is found any more.

    A deleted machine holds its volume for seconds, so the volume is found only then.
    """
    async with asyncio.timeout(60):
        while await proxy.parts.pool.sweeper.sweep() or len(volumes_of_ours(rig)) > 1:
            await asyncio.sleep(0.05)


async def _remove(rig: Rig, idle_action: str, misfortune: Misfortune) -> None:
    """Do what ``delete`` does."""
    rig.server.always.clear()
    backend = rig.open(idle_action=idle_action, **misfortune.settings)
    async with contextlib.aclosing(backend), asyncio.timeout(60):
        async for _ in backend.remove():
            pass


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
        await asyncio.sleep(0.3)
        answers += await asyncio.gather(*(ask(proxy) for _ in range(waiting)))
    return answers
