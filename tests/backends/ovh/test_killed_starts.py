"""`start` without a proxy that is killed at any call: one app, or none, and it ends."""

import contextlib
from functools import partial
from pathlib import Path

import pytest

from ollama_proxy.backends.ovh import opening
from ollama_proxy.backends.ovh.rest import RestDriver
from ollama_proxy.cli import opened_offers
from ollama_proxy.cli.offline import stop_alone
from ollama_proxy.cli.start_alone import start_alone
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.settings import Settings
from ollama_proxy.store.sqlite.notes import SqliteBackendNotes
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.backends.ovh.rig import IMAGE, Rig, ovh_rig
from tests.backends.ovh.test_killed_commands import passing_time
from tests.crashes import Death, Killed
from tests.fakes.ovh.server import AI_TOKEN
from tests.slots import slot_of

MOST_CALLS = 20
"""More calls than a start makes."""


def settings_of(rig: Rig) -> Settings:
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(rig.folder / "state"),
        "OVH_AI_API_URL": f"{rig.server.url}/{{region}}",
        "OVH_AI_TOKEN": AI_TOKEN,
        "OVH_DRIVER": "rest",
        "OVH_IMAGE": IMAGE,
    }
    return load_settings(env)


def on_record(rig: Rig) -> str | None:
    with contextlib.closing(SqliteStore(rig.folder / "state")) as store:
        record = store.get(slot_of("ovh"))
    return record.launch_id if record is not None else None


def quiet(_line: str) -> None:
    """Take what the command says."""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the cloud again after 20 ms, and not after 5 s."""
    monkeypatch.setattr(
        opening, "open_backend", partial(opening.open_backend, poll_s=0.02)
    )


@pytest.mark.parametrize("is_deployed", [True, False], ids=["kept app", "new app"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_start_that_is_killed_at_any_call_is_one_app_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, is_deployed: bool
) -> None:
    death = Death()
    death.watch(monkeypatch, RestDriver, "_call", SqliteBackendNotes)
    for number in range(1, MOST_CALLS + 1):
        async with ovh_rig(tmp_path / str(number), "rest") as rig:
            monkeypatch.setattr(opened_offers, "open_clock", lambda _, at=rig.clock: at)
            settings = settings_of(rig)
            stranger = rig.cloud.stranger()
            if is_deployed:
                death.plan(moment, 0)
                await start_alone(settings, quiet)
                await stop_alone(settings)
            made = rig.cloud.made
            death.plan(moment, number)
            with contextlib.suppress(Killed):
                await start_alone(settings, quiet)
            came = death.came
            death.plan(moment, 0)
            first = on_record(rig)
            async with passing_time(rig):  # a call that may have gone out is waited for
                await start_alone(settings, quiet)
            second, paid = on_record(rig), len(rig.cloud.paid)
            await stop_alone(settings)

            assert first is not None, number
            assert second == first, number
            assert paid == 1, number
            assert rig.cloud.made - made == (0 if is_deployed else 1), number
            assert (rig.cloud.paid, on_record(rig)) == ([], None), number
            assert [what for _, what in stranger.changes] == ["start"], number
        if not came:
            assert number > 2
            return
    raise AssertionError(f"{MOST_CALLS} calls are not enough to end a start")
