"""A launch whose offer has gone from the settings: refused, and ended by its id."""

import json
import shutil
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import PlainValidator

from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import SettingsError, StartupError
from ollama_proxy.base.fields import BackendSettings, setting
from ollama_proxy.cli import launch_ending
from ollama_proxy.cli.launch_ending import end_launch
from ollama_proxy.composition import open_backends
from ollama_proxy.composition.backend import claim_of
from ollama_proxy.config.loader import load_settings, recall_offer
from ollama_proxy.config.pools import OfferSpec
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.config.rig import toml
from tests.fakes.cloud import FakeCloud

FORMER = Path(__file__).parents[1] / "store" / "data" / "977c650.sqlite3"
LAUNCH = LaunchId("l477da30bec6458c1")
KEYS = {"EXOSCALE_API_KEY": "EXO1", "EXOSCALE_API_SECRET": "s3cr3t-of-the-key"}
OTHER = '[offers.other]\nbackend = "local"\nsimulator = "always"\n'
VIENNA = """
[offers.vienna]
backend = "exoscale"
zone = "ch-gva-2"
disk_size = 50
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def former(folder: Path) -> Path:
    """Return a state folder of the last version without offers, its instance ready."""
    folder.mkdir()
    shutil.copy(FORMER, folder / "state.sqlite3")
    return folder


def settings_of(folder: Path, text: str, env: Mapping[str, str]) -> Settings:
    given = {"OLLAMA_PROXY_STATE_DIR": str(folder), **env}
    return load_settings(given, toml(folder.parent, text))


def opened(settings: Settings) -> None:
    """Open every offer, as `serve` does first."""
    with closing(SqliteStore(settings.state_dir)) as store:
        open_backends(settings, store, SystemClock())


def run(folder: Path) -> None:
    """Leave a launch of the offer ``vienna`` on record."""
    settings = settings_of(folder, VIENNA, KEYS)
    opened(settings)
    with closing(SqliteStore(folder)) as store:
        record = Record(State.READY, since=1.0, launch_id=LAUNCH, accepted=True)
        store.put("default/0/vienna", record, None)


async def ended(
    folder: Path, text: str, env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[OfferSpec, FakeCloud]:
    """End the launch; return the offer that was opened, and its cloud."""
    cloud, found = FakeCloud(), list[OfferSpec]()
    await cloud.start(LAUNCH)

    def open_fake(offer: OfferSpec, *_: object) -> FakeCloud:
        found.append(offer)
        return cloud

    monkeypatch.setattr(launch_ending, "open_offer", open_fake)
    settings = settings_of(folder, text, env)
    await end_launch(
        settings, LAUNCH, partial(recall_offer, env, folder.parent / "p.toml")
    )
    return found[0], cloud


def test_the_start_is_refused_with_the_command_that_ends_it(folder: Path) -> None:
    run(folder)

    with pytest.raises(StartupError) as caught:
        opened(settings_of(folder, OTHER, KEYS))

    assert f"launch {LAUNCH} is on record for the offer 'vienna'" in str(caught.value)
    assert f"run `ollama-proxy stop --launch {LAUNCH}`" in str(caught.value)


async def test_it_is_ended_by_what_was_noted_and_the_start_succeeds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder)
    offer, cloud = await ended(folder, OTHER, KEYS, monkeypatch)

    assert isinstance(offer.settings, ExoscaleSettings)
    assert (offer.name, offer.settings.zone) == ("vienna", "ch-gva-2")
    assert offer.settings.disk_size == 50
    assert cloud.paid == 0
    opened(settings_of(folder, OTHER, KEYS))


async def test_an_instance_of_a_former_version_is_ended_in_the_same_way(
    former: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StartupError, match=f"stop --launch {LAUNCH}"):
        opened(settings_of(former, OTHER, KEYS))
    offer, cloud = await ended(former, OTHER, KEYS, monkeypatch)

    assert (offer.name, offer.backend) == ("exoscale", "exoscale")
    assert cloud.paid == 0
    opened(settings_of(former, OTHER, KEYS))


def test_a_former_version_goes_on_with_its_instance(former: Path) -> None:
    settings = load_settings({"OLLAMA_PROXY_STATE_DIR": str(former), **KEYS})
    opened(settings)
    with closing(SqliteStore(former)) as store:
        assert store.launches() == {"default/0/exoscale": LAUNCH}


async def test_without_the_secrets_it_is_said_which(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder)

    with pytest.raises(SettingsError) as caught:
        await ended(folder, OTHER, {}, monkeypatch)

    assert "EXOSCALE_API_KEY, EXOSCALE_API_SECRET" in str(caught.value)


async def test_a_launch_that_is_not_on_record_is_refused(folder: Path) -> None:
    run(folder)
    settings = settings_of(folder, VIENNA, KEYS)
    recall = partial(recall_offer, KEYS, None)

    with pytest.raises(StartupError, match=f"l00 is not on record.*{LAUNCH}"):
        await end_launch(settings, LaunchId("l00"), recall)


class Odd:
    """A value that has no form in JSON."""


class OddSettings(BackendSettings):
    zone: str = setting("a", text="where")
    password: str = setting("", text="not marked as a secret")
    made: Annotated[Odd, PlainValidator(lambda _: Odd())] = setting(Odd, text="odd")


def test_what_a_plug_in_sets_is_noted_as_far_as_it_can_be() -> None:
    own = OddSettings(zone="b", password="not-to-be-told", made=Odd())
    claim = claim_of(OfferSpec("odd", "odd", own), FakeCloud())

    assert json.loads(claim.spec) == {"zone": "b"}


def test_no_secret_is_noted(folder: Path) -> None:
    run(folder)
    with closing(SqliteStore(folder)) as store:
        (claim,) = store.claims().values()

    assert json.loads(claim.spec) == {"zone": "ch-gva-2", "disk_size": 50}
    assert (
        KEYS["EXOSCALE_API_SECRET"].encode()
        not in (folder / "state.sqlite3").read_bytes()
    )
