"""A sweep leaves nothing of ours behind: no instance, and no security group."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ollama_proxy.backends.exoscale.backend import ExoscaleBackend
from ollama_proxy.base import log
from ollama_proxy.base.errors import ConflictError, CredentialsError
from ollama_proxy.base.timing import Timing
from ollama_proxy.cli import offline, opened_offers
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.record import LaunchId
from tests.backends.exoscale.rig import Rig

LAUNCH = LaunchId("l0123456789abcdef")
LOST = "feedfacefeedface"
SHORT = Timing(tidy_pause_s=0.05)


@pytest.fixture
def settings(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Have the commands open the rig's backend."""
    monkeypatch.setattr(
        opened_offers, "open_backends", lambda *_: {"exoscale": rig.open(LOST)}
    )
    return Settings(state_dir=tmp_path / "state", backend="exoscale")


async def forgotten(rig: Rig) -> ExoscaleBackend:
    """Leave an instance of a deployment without a state folder, made two hours ago."""
    backend = rig.open(LOST)
    rig.clock.ahead_s -= 7200.0
    await backend.start(LAUNCH)
    rig.clock.ahead_s += 7200.0
    rig.notes.clear()
    await backend.aclose()
    return backend


@pytest.mark.parametrize("lag_s", [0.0, 0.3])
async def test_the_group_goes_with_the_last_instance_though_it_is_in_use_for_minutes(
    rig: Rig, settings: Settings, lag_s: float
) -> None:
    rig.cloud.timing.group_lag_s = lag_s
    await forgotten(rig)
    told = await offline.sweep_alone(settings, dry_run=False, timing=SHORT)

    assert told == {"swept": [LAUNCH], "kept": [], "dry_run": False}
    assert rig.cloud.paid == []
    assert rig.cloud.groups == {}


async def test_a_group_that_stays_in_use_is_told(rig: Rig, settings: Settings) -> None:
    rig.cloud.timing.group_lag_s = 1e6
    await forgotten(rig)
    told = await offline.sweep_alone(settings, dry_run=False, timing=SHORT)

    assert told["swept"] == [LAUNCH]
    (kept,) = told["kept"]
    assert kept.startswith(f"the security group ollama-proxy-{LOST} is in use still")
    assert kept.endswith("sweep again later")


async def test_a_dry_run_removes_no_group(rig: Rig, settings: Settings) -> None:
    await forgotten(rig)
    await offline.sweep_alone(settings, dry_run=True)

    assert len(rig.cloud.groups) == 1


async def test_the_sweep_of_expired_leases_removes_their_groups_and_no_others(
    rig: Rig,
) -> None:
    await forgotten(rig)
    rig.cloud.groups["theirs"] = {"id": "theirs", "name": "default", "rules": []}
    sweeper = rig.open("0000000000000000")
    rig.cloud.timing.group_lag_s = 60.0
    rig.clock.ahead_s += 3601.0
    await sweeper.sweep_expired(dry_run=False)
    with pytest.raises(ConflictError, match=f"ollama-proxy-{LOST} is in use still"):
        await sweeper.tidy()
    rig.clock.ahead_s += 61.0
    await sweeper.tidy()
    await sweeper.aclose()

    assert set(rig.cloud.groups) == {"theirs"}
    assert rig.cloud.paid == []


async def test_a_key_that_may_only_delete_instances_sweeps_all_the_same(
    rig: Rig, settings: Settings
) -> None:
    await forgotten(rig)
    rig.server.always["list-security-groups"] = "403"
    told = await offline.sweep_expired(settings, dry_run=False, timing=SHORT)

    assert len(told["swept"]) == 1
    assert rig.cloud.paid == []
    assert "could not be removed: list_security_groups" in told["kept"][0]


async def test_a_sweep_without_a_proxy_needs_no_right_to_list_groups(
    rig: Rig, settings: Settings
) -> None:
    await forgotten(rig)
    rig.server.always["list-security-groups"] = "403"
    with capture_logs() as logged:
        told = await offline.sweep_alone(settings, dry_run=False, timing=SHORT)

    assert told["swept"] == [LAUNCH]
    assert rig.cloud.paid == []
    assert "could not be removed: list_security_groups" in told["kept"][0]
    (unseen,) = [line for line in logged if line["event"] == log.GROUPS_UNSEEN]
    assert "list_security_groups" in unseen["error"]


async def test_a_refused_list_of_instances_is_no_empty_one(
    rig: Rig, settings: Settings
) -> None:
    await forgotten(rig)
    rig.server.always["list-instances"] = "403"
    with pytest.raises(CredentialsError):
        await offline.sweep_alone(settings, dry_run=False, timing=SHORT)


@pytest.mark.parametrize(("engine", "room_gib"), [("native", 85), ("docker", 80)])
async def test_the_room_for_models_follows_the_engine(
    rig: Rig, engine: str, room_gib: int
) -> None:
    backend = rig.open(engine=engine)

    assert backend.traits.models_gib == room_gib
    await backend.aclose()
