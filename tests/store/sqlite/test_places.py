"""Models remembered for one place are not listed for another."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.base.clock import SystemClock
from ollama_proxy.composition import open_backend
from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.fleet.backend import Traits, place_of
from ollama_proxy.store.sqlite.schema import MIGRATIONS
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.fakes.instance import InProcessBackend
from tests.proxy import running_proxy

CONTENTS = Snapshot(b'{"models":[]}', "0.33.0", {"m:latest": b"{}"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path)) as store:
        yield store


def test_a_place_is_what_the_models_are_on_else_where_the_instance_is() -> None:
    assert place_of("fly", Traits(models_place="app fra", location="fra")) == (
        "fly app fra"
    )
    assert place_of("lab", Traits(location="attic")) == "lab attic"
    assert place_of("lab", Traits()) == "lab"
    assert len(place_of("static", Traits(models_place="x" * 9999))) == 500


def test_a_catalogue_whose_place_nobody_noted_is_dropped(tmp_path: Path) -> None:
    before = 4
    db = sqlite3.connect(tmp_path / "state.sqlite3")
    for script in MIGRATIONS[:before]:
        db.executescript(script)
    raw = msgspec.msgpack.encode(CONTENTS)
    db.execute("INSERT INTO catalogue VALUES (1, ?)", (raw,))
    db.execute("INSERT INTO meta VALUES ('backend', 'exoscale')")
    db.execute("INSERT INTO meta VALUES ('owner_id', 'kept')")
    db.execute(f"PRAGMA user_version = {before}")
    db.commit()
    db.close()
    with closing(SqliteStore(tmp_path)) as store:
        assert store.owner_id == "kept"
        assert store.place("exoscale at-vie-2 Ubuntu").contents() is None


@pytest.mark.parametrize(
    ("settings", "keeps"),
    [
        ({}, True),
        ({"volume_gb": 0}, False),
        ({"volume_gb": 0, "idle_action": "suspend"}, True),
        ({"idle_action": "destroy"}, True),
        ({"idle_action": "destroy", "keep_volume": False}, False),
    ],
)
def test_a_disk_of_fly_is_kept_on_a_volume_or_while_suspended(
    settings: dict[str, object], *, keeps: bool
) -> None:
    assert FlySettings.model_validate(settings).keeps_disk is keeps


EXOSCALE = {
    "OLLAMA_PROXY_BACKEND": "exoscale",
    "EXOSCALE_API_KEY": "EXO0123456789abcdef01234567",
    "EXOSCALE_API_SECRET": "s",
}
OVH = {
    "OLLAMA_PROXY_BACKEND": "ovh",
    "OVH_DRIVER": "rest",
    "OVH_AI_TOKEN": "t",
    "OVH_IMAGE": "me/i:1",
}
FLY = {
    "OLLAMA_PROXY_BACKEND": "fly",
    "FLY_API_TOKEN": "t",
    "FLY_APP": "mine",
    "FLY_IMAGE": "me/i:1",
}
LOCAL = {"OLLAMA_PROXY_BACKEND": "local", "OLLAMA_PROXY_SIMULATOR": "always"}
EXOSCALE_DISK = "exoscale at-vie-2 Linux Ubuntu 24.04 LTS 64-bit"


@pytest.mark.parametrize(
    ("environment", "place", "empty"),
    [
        (EXOSCALE, EXOSCALE_DISK, True),
        (EXOSCALE | {"EXOSCALE_IDLE_ACTION": "stop"}, EXOSCALE_DISK, False),
        (OVH, "ovh GRA me/i:1", True),
        (
            OVH | {"OLLAMA_VOLUME": "models@GRA:/m:ro"},
            "ovh GRA models@GRA:/m:ro",
            False,
        ),
        (FLY, "fly mine fra volume", False),
        (FLY | {"FLY_VOLUME_GB": "0"}, "fly mine fra me/i:1", True),
        (LOCAL, "local simulator", True),
    ],
)
async def test_each_backend_tells_where_its_models_are_and_whether_they_stay(
    store: SqliteStore, environment: dict[str, str], place: str, *, empty: bool
) -> None:
    settings = load_settings(environment)
    backend = open_backend(settings, store, SystemClock())
    name = place_of(environment["OLLAMA_PROXY_BACKEND"], backend.traits)
    await backend.aclose()

    assert (name, backend.traits.starts_empty) == (place, empty)


def test_who_says_nothing_of_the_disk_is_taken_to_keep_it() -> None:
    assert not Traits().starts_empty
    assert not StaticBackend("http://there:1").traits.starts_empty


async def test_another_server_does_not_inherit_the_list_of_the_last(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path, backend=InProcessBackend()) as proxy:
        await proxy.wake()
        await proxy.until(lambda: proxy.catalogued is not None)
    dead = StaticBackend("http://127.0.0.1:9")
    async with (
        running_proxy(tmp_path, backend=dead) as proxy,
        proxy.session.get(f"{proxy.url}/api/tags") as answer,
    ):
        assert await answer.json() == {"models": []}
