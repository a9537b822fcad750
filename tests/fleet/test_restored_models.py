"""What clients put on an instance, and how the next one gets it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import LogCapture

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ollama.catalog import Catalog
from ollama_proxy.core.restore_plan import (
    Copying,
    Origin,
    Pulling,
    Removing,
    RestoreStep,
    StickyModel,
    steps_to,
)
from ollama_proxy.fleet.restored_models import RestoredModels
from ollama_proxy.simulator.faults import Faults
from ollama_proxy.simulator.server import Manners
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.fakes.instance import InProcessBackend
from tests.proxy import RunningProxy, running_proxy


def pulled(name: str, source: str | None = None) -> StickyModel:
    return StickyModel(name, Origin.PULLED, source or name)


@pytest.mark.parametrize(
    ("models", "configured", "present", "steps"),
    [
        ([pulled("a:1")], [], [], [Pulling("a:1", insecure=False)]),
        ([pulled("a:1")], [], ["a:1"], []),
        (
            [pulled("b:1", "a:1"), pulled("a:1")],
            [],
            [],
            [Pulling("a:1", insecure=False), Copying("a:1", "b:1")],
        ),
        (
            [pulled("b:1", "a:1")],
            [],
            [],
            [
                Pulling("a:1", insecure=False),
                Copying("a:1", "b:1"),
                Removing("a:1"),
            ],
        ),
        ([pulled("b:1", "a:1")], ["a:1"], ["a:1"], [Copying("a:1", "b:1")]),
        (
            [pulled("b:1", "a:1"), StickyModel("a:1", Origin.DELETED)],
            ["a:1"],
            [],
            [
                Pulling("a:1", insecure=False),
                Copying("a:1", "b:1"),
                Removing("a:1"),
            ],
        ),
        ([StickyModel("mine:1", Origin.CREATED)], [], [], []),
    ],
)
def test_a_fresh_instance_gets_what_the_last_one_had(
    models: list[StickyModel],
    configured: list[str],
    present: list[str],
    steps: list[RestoreStep],
) -> None:
    wanted = {model.name: model for model in models}

    assert steps_to(wanted, configured, set(present)) == steps


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def sticky(store: SqliteStore) -> RestoredModels:
    return RestoredModels(store, ("tiny",), restores=True)


def test_a_copy_of_a_created_model_is_lost_with_it(sticky: RestoredModels) -> None:
    sticky.created("mine")
    sticky.copied("mine", "yours")
    sticky.settle(set(), {})

    assert [model.name for model in sticky.lost()] == ["mine:latest", "yours:latest"]


def test_a_copy_of_a_copy_is_pulled_by_the_first_name(sticky: RestoredModels) -> None:
    sticky.pulled("a", insecure=True)
    sticky.copied("a", "b")
    sticky.copied("b", "c")
    sticky.deleted("a")
    sticky.deleted("b")

    assert sticky.steps(set()) == [
        Pulling("a", insecure=True),
        Copying("a", "c"),
        Removing("a"),
    ]


def test_a_configured_model_that_was_deleted_is_not_pulled_until_it_is_again(
    sticky: RestoredModels,
) -> None:
    sticky.deleted("tiny")
    without = sticky.without_deleted(["tiny"])
    sticky.pulled("tiny:latest", insecure=False)

    assert (without, sticky.without_deleted(["tiny"])) == ([], ["tiny"])


def test_the_next_instance_is_expected_to_have_what_is_configured_and_pulled(
    sticky: RestoredModels,
) -> None:
    catalogue = Catalog(["tiny"], version="0.1.0", since=lambda: 0.0, restored=sticky)
    listed = []

    def look() -> None:
        models = json.loads(catalogue.tags())["models"]
        listed.append([model["name"] for model in models])

    look()
    sticky.pulled("Other:7b", insecure=False)
    sticky.created("mine")
    look()
    sticky.deleted("tiny")
    look()
    sticky.settle(set(), {"Other:7b": "it is not in the registry"})
    look()
    sticky.deleted("other:7b")
    sticky.pulled("tiny", insecure=False)
    look()

    assert listed == [
        ["tiny:latest"],
        ["tiny:latest", "other:7b"],
        ["other:7b"],
        [],
        ["tiny:latest"],
    ]


def test_names_are_sent_as_they_were_written(sticky: RestoredModels) -> None:
    sticky.pulled("hf.co/Bartowski/Llama-GGUF:Q4_K_M", insecure=False)
    sticky.copied("hf.co/bartowski/llama-gguf:q4_k_m", "MyModel")

    assert sticky.steps(set()) == [
        Pulling("hf.co/Bartowski/Llama-GGUF:Q4_K_M", insecure=False),
        Copying("hf.co/Bartowski/Llama-GGUF:Q4_K_M", "MyModel"),
    ]


def test_a_long_name_means_the_short_one(sticky: RestoredModels) -> None:
    sticky.pulled("registry.ollama.ai/library/qwen3", insecure=False)
    there = sticky.steps({"qwen3:latest"})
    sticky.deleted("library/qwen3:latest")

    assert (there, sticky.steps(set())) == ([], [])


def test_a_configured_model_that_a_client_made_anew_is_not_replaced_in_silence(
    sticky: RestoredModels,
) -> None:
    sticky.created("tiny")
    wanted = sticky.without_deleted(["tiny"])
    sticky.settle(set(), {})

    assert wanted == []
    assert [model.name for model in sticky.lost()] == ["tiny:latest"]


def test_a_loss_is_warned_of_once(
    sticky: RestoredModels, errors_logged: LogCapture
) -> None:
    sticky.created("mine")
    for _ in range(3):
        sticky.settle(set(), {})

    assert [line["event"] for line in errors_logged.entries] == ["model.lost"]


def test_a_model_that_came_back_is_not_lost(sticky: RestoredModels) -> None:
    sticky.created("mine")
    sticky.settle(set(), {})
    sticky.settle({"mine:latest"}, {})

    assert list(sticky.lost()) == []


def test_what_is_remembered_outlives_the_process(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    sticky = RestoredModels(store, (), restores=True)
    sticky.pulled("a", insecure=False)
    sticky.pulled("b", insecure=False)
    sticky.deleted("b")
    store.close()
    again = SqliteStore(tmp_path)
    steps = RestoredModels(again, (), restores=True).steps(set())
    again.close()

    assert steps == [Pulling("a", insecure=False)]


async def models_of(proxy: RunningProxy) -> set[str]:
    async with proxy.session.get(f"{proxy.url}/api/tags") as answer:
        return {model["name"] for model in (await answer.json())["models"]}


async def change(proxy: RunningProxy, method: str, path: str, **body: object) -> None:
    async with proxy.session.request(method, proxy.url + path, json=body) as answer:
        assert answer.status == 200, await answer.text()
        await answer.read()


async def on_a_fresh_instance(proxy: RunningProxy) -> None:
    await proxy.stop()
    await proxy.wake()


@pytest.mark.parametrize("detached", ["true", "false"])
async def test_what_clients_did_is_so_on_the_next_instance(
    tmp_path: Path, detached: str
) -> None:
    async with running_proxy(
        tmp_path,
        backend=InProcessBackend(models=()),
        OLLAMA_MODEL="one,two",
        OLLAMA_PROXY_DETACHED_PULLS=detached,
    ) as proxy:
        await proxy.wake()
        await change(proxy, "POST", "/api/pull", model="new")
        await change(proxy, "POST", "/api/pull", name="whole", stream=False)
        await change(proxy, "POST", "/api/copy", source="new", destination="mine")
        await change(proxy, "POST", "/api/create", model="made", **{"from": "one"})
        await change(proxy, "DELETE", "/api/delete", model="two")
        await change(proxy, "DELETE", "/api/delete", model="new")
        await on_a_fresh_instance(proxy)
        found = await models_of(proxy)
        status = await proxy.status()

    assert found == {"one:latest", "whole:latest", "mine:latest"}
    assert [lost["model"] for lost in status["lost_models"]] == ["made:latest"]
    assert "create it again" in status["lost_models"][0]["reason"]


async def test_a_lost_model_that_is_deleted_is_forgotten(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        await change(proxy, "POST", "/api/create", model="made", **{"from": "tiny"})
        await on_a_fresh_instance(proxy)
        async with proxy.session.delete(
            f"{proxy.url}/api/delete", json={"model": "made"}
        ) as answer:
            assert answer.status == 404
        status = await proxy.status()

    assert status["lost_models"] == []


async def test_a_model_that_the_registry_lost_fails_no_launch(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.put_sticky(pulled("missing:latest"))
    store.close()
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        status = await proxy.status()

    assert status["lost_models"][0]["model"] == "missing:latest"
    assert "does not exist" in status["lost_models"][0]["reason"]


async def test_nothing_is_remembered_if_told_so(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, OLLAMA_PROXY_STICKY_MODELS="false") as proxy:
        await proxy.wake()
        await change(proxy, "POST", "/api/pull", model="new")
        await on_a_fresh_instance(proxy)

        assert await models_of(proxy) == {"tiny:latest"}
        assert proxy.store.sticky_models() == []


async def test_a_pull_that_fails_is_not_remembered(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        await change(proxy, "POST", "/api/pull", model="missing")

        assert proxy.store.sticky_models() == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"Model":"new","Stream":false}',
        b'{"model":"new","name":null,"stream":false}',
    ],
)
async def test_keys_are_read_as_go_reads_them(tmp_path: Path, body: bytes) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        url = f"{proxy.url}/api/pull"
        async with proxy.session.post(url, data=body) as answer:
            await answer.read()
        remembered = [model.name for model in proxy.store.sticky_models()]

    assert set(remembered) <= {"new:latest"}


async def test_a_sticky_pull_that_is_cut_fails_no_launch(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.put_sticky(pulled("gone:latest"))
    store.close()
    backend = InProcessBackend(Manners(faults=Faults(reset_after=2)))
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.wake()
        status = await proxy.status()

    assert [lost["model"] for lost in status["lost_models"]] == ["gone:latest"]


def test_a_created_model_is_remembered_with_its_launch(
    sticky: RestoredModels, store: SqliteStore
) -> None:
    sticky.created("Mine", LaunchId("l1"))
    sticky.copied("mine", "yours")
    sticky.created("old")

    again = RestoredModels(store, (), restores=True)

    assert again.created_on() == {"mine:latest": "l1", "yours:latest": "l1"}


def test_a_created_model_is_not_lost_while_its_instance_serves(
    sticky: RestoredModels,
) -> None:
    sticky.created("mine", LaunchId("l1"))
    sticky.created("gone", LaunchId("l0"))
    sticky.has_ready = lambda launch_id: launch_id == "l1"

    sticky.settle({"tiny:latest"}, {})  # another instance of the pool is ready

    assert [model.name for model in sticky.lost()] == ["gone:latest"]


def test_a_pool_remembers_the_models_that_are_its_own_now(store: SqliteStore) -> None:
    one = RestoredModels(store, (), restores=True)
    one.pulled("big:1", insecure=False)
    one.pulled("small:1", insecure=False)

    def of(prefix: str) -> RestoredModels:
        return RestoredModels(
            store, (), restores=True, serves=lambda name: name.startswith(prefix)
        )

    big, small = of("big"), of("small")

    assert (big.expected([]), small.expected([])) == (["big:1"], ["small:1"])


def test_instances_that_keep_their_models_have_nothing_restored(
    sticky: RestoredModels,
) -> None:
    sticky.pulled("new", insecure=False)
    kept = sticky.without_restoring()
    sticky.deleted("tiny")

    assert sticky.steps(set()) == [Pulling("new", insecure=False)]
    assert kept.steps(set()) == []
    assert kept.without_deleted(["tiny"]) == []
