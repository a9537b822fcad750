"""Commands on settings with several offers: each is examined, swept and stopped."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import StartupError
from ollama_proxy.cli import opened_offers
from ollama_proxy.cli.doctor import examine
from ollama_proxy.cli.launch_plan import launch_plans
from ollama_proxy.cli.offline import look_alone, stop_alone, sweep_alone
from ollama_proxy.cli.opened_offers import chosen_offer
from ollama_proxy.cli.own_upstream import refuse_own_upstream
from ollama_proxy.cli.serve import known_tags
from ollama_proxy.composition import open_backends
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.record import LaunchId, Record, State
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.store.claim import Claim
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.config.rig import toml
from tests.fakes.cloud import FakeCloud
from tests.ports import address_of_nobody

FIRST, SECOND, STRAY = LaunchId("l1"), LaunchId("l2"), LaunchId("l3")
TEXT = """
listen = "127.0.0.1:0"

[offers.box]
backend = "static"
upstream_url = "http://{nobody}"

[offers.vienna]
backend = "exoscale"
price_per_hour = 1.5
currency = "EUR"

[offers.here]
backend = "local"
simulator = "always"

[pools.big]
models = "*:70b"
offers = ["vienna"]

[pools.rest]
offers = ["box", "vienna"]
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path / "state"),
        "EXOSCALE_API_KEY": "EXO1",
        "EXOSCALE_API_SECRET": "s3cr3t",
    }
    text = TEXT.replace("{nobody}", address_of_nobody())
    return load_settings(env, toml(tmp_path, text))


class Clouds:
    """A cloud behind each of two offers, with an instance on record, and a stray."""

    def __init__(self) -> None:
        self.by_offer = {"box": FakeCloud(), "vienna": FakeCloud()}

    async def fill(self, folder: Path) -> None:
        with closing(SqliteStore(folder)) as store:
            for offer, launch_id in (("box", FIRST), ("vienna", SECOND)):
                record = Record(State.READY, launch_id=launch_id, accepted=True)
                store.claim(
                    [Claim(name, name) for name in self.by_offer],
                    [f"rest/0/{name}" for name in self.by_offer],
                )
                store.put(f"rest/0/{offer}", record, None)
                await self.by_offer[offer].start(launch_id)
        await self.by_offer["vienna"].start(STRAY)

    @property
    def paid(self) -> int:
        return sum(cloud.paid for cloud in self.by_offer.values())


@pytest.fixture
def clouds(monkeypatch: pytest.MonkeyPatch) -> Clouds:
    made = Clouds()
    monkeypatch.setattr(opened_offers, "open_backends", lambda *_: made.by_offer)
    return made


async def test_check_examines_every_offer_under_its_name(settings: Settings) -> None:
    findings = {one.subject: one for one in await examine(settings)}

    assert findings["offer vienna, what is started"].detail.startswith(
        "exoscale: a5000.small (at-vie-2), 1.5 EUR per hour as configured; chosen"
    )
    assert not findings["offer box, upstream"].ok
    assert findings["offer here, program"].ok
    unused = findings["settings of others"].detail
    assert "offers.here: no pool uses this offer" in unused


async def test_check_and_the_start_know_the_models_that_a_pool_had(
    tmp_path: Path,
) -> None:
    env = {
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path / "state"),
        "EXOSCALE_API_KEY": "EXO1",
        "EXOSCALE_API_SECRET": "s3cr3t",
        "OLLAMA_MODEL": "had:70b",
    }
    text = TEXT.replace("{nobody}", address_of_nobody())
    settings = load_settings(env, toml(tmp_path, text))
    tags = json.dumps({"models": [{"name": "had:70b", "size": 60 << 30}]}).encode()
    with closing(SqliteStore(settings.state_dir)) as store:
        backends = open_backends(settings, store, SystemClock())
        place = store.place("big/vienna at-vie-2 Linux Ubuntu 24.04 LTS 64-bit")
        place.put_contents(Snapshot(tags, "0.33.0"))
        known = known_tags(settings.pools[0], store, backends)
    findings = {one.subject: one for one in await examine(settings)}

    assert known == tags
    assert "models 60.0 GiB" in findings["offer vienna, disk and models"].detail


def test_the_start_says_what_each_offer_would_buy(settings: Settings) -> None:
    with closing(SqliteStore(settings.state_dir)) as store:
        backends = open_backends(settings, store, SystemClock())
    lines = [plan.line for plan in launch_plans(settings, backends)]

    assert lines[0].startswith(
        "Offer 'box' of pool 'rest': static: a server that is there anyway (http://"
    )
    assert lines[1].startswith("Offer 'vienna' of pools 'big' and 'rest': exoscale: ")
    assert lines[2].startswith("Offer 'here' of pool none: local: simulator")


async def test_stop_ends_the_launches_of_every_offer(
    settings: Settings, clouds: Clouds
) -> None:
    await clouds.fill(settings.state_dir)
    stopped = await stop_alone(settings)

    assert sorted(stopped) == [FIRST, SECOND, STRAY]
    assert clouds.paid == 0
    with closing(SqliteStore(settings.state_dir)) as store:
        assert store.launch_ids() == set()


async def test_a_sweep_ends_strays_of_every_offer_and_what_is_on_record_of_none(
    settings: Settings, clouds: Clouds
) -> None:
    await clouds.fill(settings.state_dir)
    found = await sweep_alone(settings, dry_run=False)

    assert found["swept"] == [STRAY]
    assert clouds.paid == 2


async def test_an_offer_whose_cloud_refuses_keeps_no_other_from_its_sweep(
    settings: Settings, clouds: Clouds
) -> None:
    await clouds.fill(settings.state_dir)
    clouds.by_offer["box"].faults.list_fails = 1.0
    found = await sweep_alone(settings, dry_run=False)

    assert found["swept"] == [STRAY]
    (failed,) = found["failed"]
    assert failed.startswith("box: ")


async def test_a_cloud_that_refuses_hides_nothing_that_another_offer_has(
    settings: Settings, clouds: Clouds
) -> None:
    await clouds.fill(settings.state_dir)
    clouds.by_offer["box"].faults.list_fails = 1.0
    lines = await look_alone(settings)

    assert sorted(lines) == [
        "box: the list failed",
        f"vienna: instance of launch {SECOND}",
        f"vienna: instance of launch {STRAY}",
    ]


def test_a_choice_among_offers_is_asked_for(settings: Settings) -> None:
    with pytest.raises(StartupError, match="name one: --offer box, vienna, here"):
        chosen_offer(settings, None)
    with pytest.raises(StartupError, match="no offer 'vienne'; known: box, vienna"):
        chosen_offer(settings, "vienne")

    assert chosen_offer(settings, "vienna").backend == "exoscale"


async def test_an_offer_that_points_at_the_proxy_itself_is_refused(
    tmp_path: Path,
) -> None:
    text = TEXT.replace("127.0.0.1:0", "127.0.0.1:18999").replace(
        "{nobody}", "127.0.0.1:18999"
    )
    env = {"EXOSCALE_API_KEY": "EXO1", "EXOSCALE_API_SECRET": "s3cr3t"}

    with pytest.raises(StartupError, match="this proxy itself is to listen"):
        await refuse_own_upstream(load_settings(env, toml(tmp_path, text)))
