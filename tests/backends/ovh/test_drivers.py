"""Both drivers do the same, and every failure is named after what to do next."""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.ovh.cli import CliDriver
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.backends.ovh.failures import Aim, failure
from ollama_proxy.backends.ovh.opening import open_driver
from ollama_proxy.backends.ovh.order import Order
from ollama_proxy.backends.ovh.rest import RestDriver
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.backends.ovh.volume import parse_volume
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitError,
    SpecError,
    TransientError,
)
from tests.backends.ovh.rig import Rig, ovh_rig
from tests.fakes.ovh.command import PASSWORD, USER
from tests.fakes.ovh.server import AI_TOKEN

ORDER = Order(
    name="ollama-proxy-l0123",
    region="GRA",
    image="registry.example/ollama:1",
    flavor="l4-1-gpu",
    units=2,
    has_gpu=True,
    labels={"ollama-proxy-managed": "true"},
    environment={"PORT": "8080"},
    volume=parse_volume("models@S3/big:/models:ro:cache"),
)


@pytest.fixture
async def driver(rig: Rig) -> AsyncIterator[Driver]:
    async with contextlib.aclosing(driver_of(rig)) as opened:
        yield opened


def driver_of(rig: Rig, timing: CloudTiming = STANDARD) -> Driver:
    if rig.driver == "cli":
        return cli_driver(rig, timing)
    url = f"{rig.server.url}/gra"
    return RestDriver("GRA", url=url, token=AI_TOKEN, timing=timing)


def cli_driver(rig: Rig, timing: CloudTiming = STANDARD, **more: str) -> CliDriver:
    home = rig.folder / "home"
    return CliDriver(
        "GRA",
        program=str(rig.program),
        home=home,
        template=None,
        environment=os.environ,
        timing=timing,
        **more,
    )


async def test_an_app_is_made_as_ordered_and_read_back(
    rig: Rig, driver: Driver
) -> None:
    made = await driver.create(ORDER)
    (app,) = rig.cloud.apps.values()
    await driver.label(made.id, "ollama-proxy-lease", "7")
    seen = await driver.app(made.id)

    assert app.spec["resources"] == {"flavor": "l4-1-gpu", "gpu": 2}
    assert app.spec["defaultHttpPort"] == 8080
    assert app.environment == {"PORT": "8080"}
    assert made.state in {"QUEUED", "RUNNING"}
    assert seen.tag("lease") == "7"
    assert seen.status.url == f"{rig.server.url}/{made.id}"


async def test_every_page_of_a_list_is_read(rig: Rig, driver: Driver) -> None:
    for _ in range(5):
        await driver.create(ORDER)

    assert len(await driver.apps()) == 5


async def test_an_app_lives_and_goes(rig: Rig, driver: Driver) -> None:
    app = await driver.create(ORDER)
    await driver.stop(app.id)
    stopped = (await driver.app(app.id)).state
    await driver.start(app.id)
    running = (await driver.app(app.id)).state
    with pytest.raises(ConflictError):
        await driver.delete(app.id, force=False)
    await driver.delete(app.id, force=True)
    with pytest.raises(NotFoundError):
        await driver.app(app.id)

    assert (stopped, running) == ("STOPPED", "RUNNING")


FAILURES = {
    "400": SpecError,
    "401": CredentialsError,
    "402": CredentialsError,
    "403": CredentialsError,
    "429": RateLimitError,
    "500": OutcomeUnknownError,
    "503": OutcomeUnknownError,
    "html-502-after": OutcomeUnknownError,
    "lost-after": OutcomeUnknownError,
    "lost-before": OutcomeUnknownError,
    "slow": OutcomeUnknownError,
}


HANGING = {"lost-after", "lost-before", "slow"}
"""The faults after which no answer comes at all, by one driver or the other."""


def patience_with(fault: str) -> CloudTiming:
    """Wait briefly for what never comes; for anything else as long as it takes."""
    return CloudTiming(command_s=0.5, call_s=0.5) if fault in HANGING else STANDARD


@pytest.mark.parametrize("fault", FAILURES)
async def test_a_creation_that_fails_says_what_to_do(
    rig: Rig, driver: Driver, fault: str
) -> None:
    await driver.flavors()
    rig.server.script["create"] = [fault]
    async with contextlib.aclosing(driver_of(rig, patience_with(fault))) as impatient:
        with pytest.raises(BackendError) as caught:
            await impatient.create(ORDER)

    assert type(caught.value) is FAILURES[fault]


@pytest.mark.parametrize("fault", ["500", "lost-after", "slow", "html-502-after"])
async def test_a_look_that_fails_has_changed_nothing(
    rig: Rig, driver: Driver, fault: str
) -> None:
    app = await driver.create(ORDER)
    rig.server.script["get"] = [fault] * 2  # a look on a kept connection is repeated
    async with contextlib.aclosing(driver_of(rig, patience_with(fault))) as impatient:
        with pytest.raises(TransientError):
            await impatient.app(app.id)


def test_a_quota_is_no_fault_of_the_token() -> None:
    error = failure(Aim.CREATE, 403, "quota of GPUs exceeded")

    assert isinstance(error, CapacityError)


async def test_another_regions_app_is_not_there(rig: Rig, driver: Driver) -> None:
    stranger = rig.cloud.stranger("BHS")
    with pytest.raises(NotFoundError):
        await driver.app(stranger.id)


@pytest.fixture
async def only_cli(tmp_path: Path) -> AsyncIterator[Rig]:
    async with ovh_rig(tmp_path, "cli") as made:
        yield made


@pytest.mark.parametrize("fault", ["prompt", "nested"])
async def test_a_question_instead_of_an_answer_is_not_an_answer(
    only_cli: Rig, fault: str
) -> None:
    driver = cli_driver(only_cli)
    only_cli.server.script |= {"list": [fault], "create": [fault]}
    with pytest.raises(TransientError, match="no JSON"):
        await driver.apps()
    with pytest.raises(OutcomeUnknownError):
        await driver.create(ORDER)
    await driver.aclose()


async def test_a_command_that_hangs_is_killed_with_its_group(
    only_cli: Rig,
) -> None:
    pids = only_cli.folder / "pids"
    script = f"#!/bin/sh\n[ $1 = config ] && exit 0\necho $$ >> {pids}\n"
    only_cli.program.write_text(
        script + f"sh -c 'echo $$ >> {pids}; sleep 60' & wait\n"
    )
    driver = cli_driver(only_cli, patience_with("slow"))
    with pytest.raises(OutcomeUnknownError, match="was killed"):
        await driver.start("a")
    told = [int(pid) for pid in pids.read_text().split()]
    await asyncio.sleep(0.05)

    assert len(told) == 2
    assert not [pid for pid in told if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


async def test_a_program_that_is_not_there_is_named(only_cli: Rig) -> None:
    driver = CliDriver(
        "GRA",
        program="/no/ovhai",
        home=only_cli.folder / "h",
        template=None,
        environment={},
    )
    with pytest.raises(SpecError, match="OVHAI_BIN"):
        await driver.apps()
    await driver.aclose()


async def test_it_logs_in_by_itself_with_a_password_that_nobody_sees(
    only_cli: Rig,
) -> None:
    only_cli.command.logged_in = False
    driver = cli_driver(only_cli, username=USER, password=PASSWORD)
    apps = await driver.apps()
    again = await driver.apps()
    await driver.aclose()

    assert apps == again == []
    assert only_cli.command.logins == 1


async def test_without_a_log_in_it_says_how(only_cli: Rig) -> None:
    only_cli.command.logged_in = False
    driver = cli_driver(only_cli)
    with pytest.raises(CredentialsError, match="ovhai login"):
        await driver.apps()
    await driver.aclose()


async def test_a_users_own_log_in_is_copied_and_stays_private(only_cli: Rig) -> None:
    theirs = only_cli.folder / "user/.config/ovhai"
    theirs.mkdir(parents=True)
    (theirs / "context.json").write_text("{}")
    home = only_cli.folder / "own"
    driver = CliDriver(
        "GRA",
        program=str(only_cli.program),
        home=home,
        template=only_cli.folder / "user",
        environment=os.environ,
    )
    await driver.apps()
    await driver.aclose()
    folder = home / ".config/ovhai"

    assert (folder / "context.json").read_text() == "{}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert only_cli.command.homes == {str(home): "GRA"}


async def test_a_user_without_a_home_has_no_log_in_to_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_none(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", has_none)
    given = {"driver": "cli", "username": USER, "password": PASSWORD}
    driver = open_driver(OvhSettings.model_validate(given), tmp_path, {}, "GRA")

    assert isinstance(driver, CliDriver)


async def test_a_log_in_that_finds_no_room_is_told_with_the_setting(
    tmp_path: Path,
) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    driver = CliDriver(
        "GRA",
        program="ovhai",
        home=tmp_path / "home",
        template=tmp_path,
        environment={},
    )
    with pytest.raises(TransientError, match="set OLLAMA_PROXY_STATE_DIR"):
        await driver.whoami()
