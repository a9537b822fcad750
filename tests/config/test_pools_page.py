"""The examples of docs/pools.md are loaded, opened and do what the page says."""

import re
from contextlib import closing
from pathlib import Path

import pytest

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import CapacityError
from ollama_proxy.composition import open_backends
from ollama_proxy.composition.backend import offers_of
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ollama.model_globs import ModelGroups
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.config.rig import toml
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, generate, lines, running_proxy

PAGE = Path(__file__).parents[2] / "docs" / "pools.md"
_EXAMPLE = r"(?ms)^## ([^\n]+)\n(?:(?!^## ).)*?^```toml\n(.*?)^```"
EXAMPLES = dict(re.findall(_EXAMPLE, PAGE.read_text("utf-8")))
TWO_MODELS = "Two machines for two models"
OVERFLOW = "Your own box first, a cloud as overflow"
SOLD_OUT = "The GPU is sold out: the next zone, the next cloud"
EXOSCALE = {"EXOSCALE_API_KEY": "EXO1", "EXOSCALE_API_SECRET": "s3cr3t"}
OVH = {
    "OVH_AI_TOKEN": "t",
    "OVH_DRIVER": "rest",
    "OVH_IMAGE": "registry.example/ollama:1",
}
WAIT = {"Prefer": "wait=20"}


def credentials(name: str) -> dict[str, str]:
    return EXOSCALE | (OVH if '"ovh"' in EXAMPLES[name] else {})


def loaded(folder: Path, name: str) -> Settings:
    env = credentials(name) | {"OLLAMA_PROXY_STATE_DIR": str(folder / "state")}
    return load_settings(env, toml(folder, EXAMPLES[name]))


def offers(settings: Settings) -> dict[str, tuple[Offer, ...]]:
    """Return what the launches of each pool are made of."""
    with closing(SqliteStore(settings.state_dir)) as store:
        backends = open_backends(settings, store, SystemClock())
    return {pool.name: offers_of(pool, settings, backends) for pool in settings.pools}


def test_the_page_has_an_example_of_each_task() -> None:
    assert list(EXAMPLES) == [TWO_MODELS, OVERFLOW, SOLD_OUT]


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_is_a_whole_file(tmp_path: Path, name: str) -> None:
    settings = loaded(tmp_path, name)

    assert settings.notices == ()


def test_two_models_have_a_machine_each(tmp_path: Path) -> None:
    settings = loaded(tmp_path, TWO_MODELS)
    ((large,), (small,)) = offers(settings).values()
    groups = ModelGroups((pool.name, pool.models) for pool in settings.pools)

    assert [large.models, small.models] == [("llama3.1:70b",), ("llama3.2",)]
    assert groups.group_of("mixtral") == "large"
    assert groups.group_of("qwen3:8b") == "small"
    assert (large.backend.traits.instance_type, large.price_per_hour) == (
        "a40.small",
        1.93,
    )
    assert (large.slots, small.slots) == (None, None)


def test_the_box_comes_before_the_cloud_with_its_slots(tmp_path: Path) -> None:
    ((box, cloud),) = offers(loaded(tmp_path, OVERFLOW)).values()

    assert box.backend.traits.externally_managed
    assert (box.slots, cloud.slots) == (2, 4)


def test_the_next_zone_and_the_next_cloud_are_offers_in_order(tmp_path: Path) -> None:
    (found,) = offers(loaded(tmp_path, SOLD_OUT)).values()

    assert [one.backend.traits.location for one in found] == [
        "at-vie-2",
        "ch-gva-2",
        "GRA",
    ]
    assert [one.slots for one in found] == [4, 4, 4]


class Full(InProcessBackend):
    """A backend whose cloud has no room."""

    async def start(self, launch_id: LaunchId) -> None:
        raise CapacityError(f"no room for {launch_id}")


async def asked(proxy: RunningProxy, model: str) -> int:
    """Ask a model, and return the status once its answer has ended."""
    url, body = f"{proxy.url}/api/generate", generate(model=model)
    async with proxy.session.post(url, json=body, headers=WAIT) as reply:
        assert lines(await reply.read())[-1]["done"]
        return reply.status


async def test_a_request_is_answered_by_the_machine_of_its_model(
    tmp_path: Path,
) -> None:
    backends = {"large": InProcessBackend(), "small": InProcessBackend()}
    async with running_proxy(
        tmp_path / "proxy",
        backends=backends,
        file=toml(tmp_path, EXAMPLES[TWO_MODELS]),
        **EXOSCALE,  # type: ignore[arg-type]  # no other argument is called so
    ) as proxy:
        first = await asked(proxy, "llama3.1:70b")
        launches = [one.launches for one in backends.values()]
        second = await asked(proxy, "llama3.2")

    assert (first, second) == (200, 200)
    assert launches == [1, 0]
    assert [one.launches for one in backends.values()] == [1, 1]


async def test_without_room_the_next_offer_answers_the_same_request(
    tmp_path: Path,
) -> None:
    backends = {
        "vienna": Full(),
        "geneva": InProcessBackend(),
        "gravelines": InProcessBackend(),
    }
    async with running_proxy(
        tmp_path / "proxy",
        backends=backends,
        file=toml(tmp_path, EXAMPLES[SOLD_OUT]),
        OLLAMA_MODEL="tiny",
        **credentials(SOLD_OUT),  # type: ignore[arg-type]  # likewise
    ) as proxy:
        status = await asked(proxy, "tiny")

    assert status == 200
    assert [one.launches for one in backends.values()] == [0, 1, 0]
