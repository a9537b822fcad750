"""`sweep --all-owners`, `--owner` and `--adopt-owner`, on the strict fakes."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.backends.exoscale.rig import exoscale_rig
from tests.backends.fly.rig import APP, IMAGE, fly_rig
from tests.backends.ovh.rig import ovh_rig
from tests.black_box import forked_proxy, run_cli
from tests.fakes.exoscale.server import KEY, SECRET
from tests.fakes.fly.server import TOKEN
from tests.fakes.ovh.server import AI_TOKEN
from tests.ports import address_of_nobody

LOST = "aaaaaaaaaaaaaaaa"
LAUNCH = LaunchId("l1111111111111111")
CLOUDS = ("exoscale", "ovh", "fly")
PRICES = {
    "EXOSCALE_PRICE_PER_HOUR": "1.25",
    "OVH_PRICE_PER_HOUR": "1.25",
    "FLY_PRICE_PER_HOUR": "1.25",
}


@dataclass(slots=True)
class Scene:
    """A cloud in which an owner whose state is lost has left an instance."""

    rig: Any
    env: dict[str, str]
    folder: Path
    name: str

    def expire(self) -> None:
        """Let the lease of everything be over."""
        for one in self.rig.cloud.paid:
            marks = one.metadata if self.name == "fly" else one.labels
            key = next(key for key in marks if key.endswith("lease"))
            marks[key] = "t1" if self.name == "exoscale" else "1"

    @property
    def left(self) -> list[object]:
        """All that is there of ours, paid for or not."""
        cloud = self.rig.cloud
        if self.name == "exoscale":
            ours = [i for i in cloud.instances.values() if i.labels]
            return [*(i for i in ours if cloud.exists(i)), *cloud.groups]
        if self.name == "fly":
            ours = [m for m in cloud.machines() if "ollama_proxy" in m.metadata]
            return [*(m for m in ours if cloud.is_there(m)), *cloud.volumes()]
        ours = [a for a in cloud.apps.values() if len(a.labels) > 2]
        return [app for app in ours if cloud.is_there(app)]

    async def typed(self, *words: str) -> "CompletedProcess[str]":
        return await asyncio.to_thread(run_cli, *words, **self.env)

    def journal(self) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(self.folder / "state.sqlite3")) as db:
            return db.execute(
                "SELECT event, launch_id FROM journal WHERE slot = 'owners'"
            ).fetchall()


@asynccontextmanager
async def scene(name: str, tmp_path: Path) -> AsyncIterator[Scene]:
    """Have an owner leave an instance, with what hangs on it, and a stranger."""
    rigs: dict[str, Any] = {"exoscale": exoscale_rig, "ovh": ovh_rig, "fly": fly_rig}
    async with rigs[name](tmp_path) as rig:
        if name == "fly":  # each command keeps Fly's pace, and the fake counts all
            rig.server.is_paced = False
        env = {
            "OLLAMA_HOST": address_of_nobody(),
            "OLLAMA_PROXY_STATE_DIR": str(tmp_path / "new"),
            "OLLAMA_PROXY_BACKEND": name,
            **PRICES,
        }
        url = rig.server.url
        env |= {
            "exoscale": {
                "EXOSCALE_API_KEY": KEY,
                "EXOSCALE_API_SECRET": SECRET,
                "EXOSCALE_API_ENDPOINT": url,
            },
            "ovh": {
                "OVH_AI_API_URL": f"{url}/{{region}}",
                "OVH_DRIVER": "rest",
                "OVH_AI_TOKEN": AI_TOKEN,
                "OVH_IMAGE": IMAGE,
            },
            "fly": {
                "FLY_FLAPS_BASE_URL": url,
                "FLY_API_TOKEN": TOKEN,
                "FLY_APP": APP,
                "FLY_IMAGE": IMAGE,
            },
        }[name]
        if name == "fly":
            stranger = rig.cloud.stranger(rig.app)
        else:
            stranger = rig.cloud.stranger()
        lost = rig.open(LOST)
        await lost.start(LAUNCH)
        await lost.aclose()
        yield Scene(rig, env, tmp_path / "new", name)
        if name == "fly":
            assert rig.cloud.state(stranger) == "started"
        elif name == "ovh":
            assert [what for _, what in stranger.changes] == ["start"]
        else:
            assert rig.cloud.state(stranger) == "running"


@pytest.fixture(params=CLOUDS)
async def lost(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(request.param, tmp_path) as made:
        yield made


async def test_what_a_lost_state_folder_left_is_listed_with_its_command(
    lost: Scene,
) -> None:
    listed = await lost.typed("sweep", "--all-owners")
    checked = await lost.typed("check")
    lost.expire()
    later = await lost.typed("sweep", "--all-owners")

    assert listed.returncode == 0, listed.stderr
    for told in (listed.stdout, checked.stdout):
        assert f"owner {LOST}, launch {LAUNCH}, age 0 min, 1.25 per hour" in told
        assert f"`ollama-proxy sweep --owner {LOST} --launch {LAUNCH}`" in told
    assert "warn  another owner's" in checked.stdout
    assert f"its lease is over; `ollama-proxy sweep --owner {LOST}`" in later.stdout
    assert len(lost.rig.cloud.paid) == 1


async def test_what_shows_a_living_proxy_is_refused(lost: Scene) -> None:
    done = await lost.typed("sweep", "--owner", LOST, "--yes")

    assert done.returncode == 1
    assert "a proxy lives by" in done.stderr
    assert len(lost.rig.cloud.paid) == 1
    assert lost.journal() == []


async def test_a_launch_that_is_named_is_deleted_with_all_that_hangs_on_it(
    lost: Scene,
) -> None:
    words = ("sweep", "--owner", LOST, "--launch", LAUNCH, "--yes")
    done = await lost.typed(*words)
    again = await lost.typed(*words)

    assert done.returncode == 0, done.stderr
    assert lost.left == []
    assert "OwnerSwept" not in done.stderr
    assert ("OwnerSwept", LAUNCH) in lost.journal()
    assert again.stdout == f"nothing carries the owner id {LOST}\n"


async def test_what_no_proxy_wants_is_deleted_after_a_yes(lost: Scene) -> None:
    lost.expire()
    unasked = await lost.typed("sweep", "--owner", LOST)
    there = len(lost.left)
    wrong = await lost.typed("sweep", "--owner", "b" * 16, "--yes")
    done = await lost.typed("sweep", "--owner", LOST, "--yes")

    assert (unasked.returncode, there > 0) == (2, True)
    assert "nothing was touched" in unasked.stderr
    assert "nothing carries the owner id" in wrong.stdout
    assert done.returncode == 0, done.stderr
    assert lost.left == []


async def test_a_lost_owner_is_swept_while_a_proxy_runs_on_the_new_folder(
    lost: Scene,
) -> None:
    lost.expire()
    env = {k: v for k, v in lost.env.items() if "STATE_DIR" not in k}
    env.pop("OLLAMA_HOST")

    def live() -> tuple[str, list[Any]]:
        with forked_proxy(lost.folder, **env) as proxy:
            done = run_cli("sweep", "--owner", LOST, "--yes", **lost.env)
            with closing(sqlite3.connect(lost.folder / "state.sqlite3")):
                told = proxy.get("/-/journal")["transitions"]
            proxy.terminate()
            return done.stdout + done.stderr, told

    said, told = await asyncio.to_thread(live)

    assert "deleted" in said
    assert lost.left == []
    assert told[-1]["event"] == "OwnerSwept", json.dumps(told)


async def test_an_adopted_owner_is_ours_and_its_instance_is_stopped(
    lost: Scene,
) -> None:
    lost.expire()
    unasked = await lost.typed("sweep", "--adopt-owner", LOST)
    done = await lost.typed("sweep", "--adopt-owner", LOST, "--yes")
    with closing(SqliteStore(lost.folder)) as store:
        owner_id, remembered = store.owner_id, store.remembers(LAUNCH)
    again = await lost.typed("sweep", "--adopt-owner", LOST, "--yes")
    swept = await lost.typed("sweep")

    assert unasked.returncode == 2
    assert done.returncode == 0, done.stderr
    assert (owner_id, remembered) == (LOST, True)
    assert again.returncode == 2
    assert "things of its own" in again.stderr
    assert f"stopped {LAUNCH}" in swept.stdout
    assert lost.rig.cloud.paid == []


async def test_what_a_living_proxy_has_is_not_adopted(lost: Scene) -> None:
    done = await lost.typed("sweep", "--adopt-owner", LOST, "--yes")
    with closing(SqliteStore(lost.folder)) as store:
        owner_id = store.owner_id

    assert done.returncode == 1
    assert "was not adopted" in done.stderr
    assert owner_id != LOST


@pytest.mark.parametrize(
    "words",
    [
        ("--owner", LOST, "--all-owners"),
        ("--owner", LOST, "--adopt-owner", LOST),
        ("--owner", LOST, "--dry-run"),
        ("--expired", "--all-owners"),
        ("--launch", LAUNCH),
        ("--yes",),
    ],
)
def test_options_that_contradict_each_other_are_refused(words: tuple[str, ...]) -> None:
    done = run_cli("sweep", *words)

    assert done.returncode == 2
    assert done.stderr.startswith("ollama-proxy: ")


def test_a_backend_without_owners_says_so(tmp_path: Path) -> None:
    env = {"OLLAMA_PROXY_STATE_DIR": str(tmp_path), "OLLAMA_PROXY_BACKEND": "local"}
    done = run_cli("sweep", "--all-owners", OLLAMA_PROXY_SIMULATOR="always", **env)

    assert done.returncode == 2
    assert "nothing that outlives its proxy" in done.stderr
