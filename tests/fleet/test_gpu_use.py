"""Whether the GPU is used: how it is read, its meaning, and its consequences."""

import json
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from ollama_proxy.base import log
from ollama_proxy.core.ollama.load_wish import LoadWish
from ollama_proxy.fleet.gpu_use import GpuCheck, GpuLook, GpuUse, read_gpu_use
from ollama_proxy.simulator.models import shown
from ollama_proxy.simulator.server import Manners
from tests.backends.exoscale.rig import Rig, exoscale_rig
from tests.fakes.instance import InProcessBackend
from tests.proxy import generate, running_proxy


def ps(**entry: Any) -> bytes:
    return json.dumps({"models": [{"name": "tiny:latest", **entry}]}).encode()


def test_sizes_and_share_are_read() -> None:
    use = read_gpu_use(ps(size=400, size_vram=100), "tiny")

    assert use == GpuUse("tiny", 400, 100)
    assert use.used
    assert use.share == 0.25


def test_more_than_the_whole_is_the_whole() -> None:
    use = read_gpu_use(ps(size=400, size_vram=500), "TINY")

    assert use is not None
    assert use.share == 1.0


def test_a_server_that_leaves_out_what_is_zero_has_nothing_on_the_gpu() -> None:
    assert read_gpu_use(ps(size=400), "tiny") == GpuUse("tiny", 400, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'{"models": null}',
        b'{"models": {"name": "tiny"}}',
        b'{"models": ["tiny", 1, null]}',
        b'{"models": [{"name": 1, "model": ["tiny"]}]}',
        ps(size="400", size_vram=1),
        ps(size=400, size_vram="1"),
        ps(size=400, size_vram=None),
        ps(size=400, size_vram=-1),
        ps(size=400, size_vram=True),
        ps(size=0, size_vram=0),
        ps(size=2**64, size_vram=0),
        ps(size=1.5, size_vram=0),
        ps(name="other:latest", size=400, size_vram=0),
    ],
)
def test_what_can_not_be_read_tells_nothing(body: bytes) -> None:
    assert read_gpu_use(body, "tiny") is None


@pytest.mark.parametrize(
    ("check", "gpus", "size_vram", "warns", "fails"),
    [
        (GpuCheck.WARN, 1, 0, True, False),
        (GpuCheck.WARN, 1, 40, True, False),
        (GpuCheck.WARN, 1, 100, False, False),
        (GpuCheck.FAIL, 1, 0, True, True),
        (GpuCheck.FAIL, 1, 40, True, False),
        (GpuCheck.FAIL, 1, 100, False, False),
        (GpuCheck.FAIL, None, 0, False, False),
    ],
)
def test_what_a_share_means(
    check: GpuCheck, gpus: int | None, size_vram: int, warns: bool, fails: bool
) -> None:
    look = GpuLook(check, gpus)
    fault = look.take(GpuUse("tiny", 100, size_vram), is_meant=False, is_ours=True)

    assert bool(look.problem) is warns
    assert (fault is not None) is fails


def test_what_was_asked_for_is_no_problem() -> None:
    look = GpuLook(GpuCheck.FAIL, 1)

    assert look.take(GpuUse("tiny", 100, 0), is_meant=True, is_ours=True) is None
    assert look.problem == ""


def test_what_a_client_had_loaded_before_fails_no_launch() -> None:
    look = GpuLook(GpuCheck.FAIL, 1)

    assert look.take(GpuUse("tiny", 100, 0), is_meant=False, is_ours=False) is None
    assert look.problem


@pytest.mark.parametrize(
    ("check", "gpus"), [(GpuCheck.OFF, 1), (GpuCheck.FAIL, 0), (GpuCheck.WARN, 0)]
)
def test_nobody_asks_where_there_is_no_gpu_or_no_wish_to_know(
    check: GpuCheck, gpus: int
) -> None:
    look = GpuLook(check, gpus)

    assert not look.is_on
    assert look.body() is None


@pytest.mark.parametrize(
    ("options", "chooses"),
    [(b"", False), (b'{"num_ctx":1}', False), (b'{"num_gpu":0}', True)],
)
def test_a_wish_may_choose_how_much_is_on_the_gpu(
    options: bytes, chooses: bool
) -> None:
    assert LoadWish("tiny", options).chooses_gpu is chooses


async def launched(
    rig: Rig, folder: Path, share: float, check: str = "warn"
) -> tuple[dict[str, Any], int, str]:
    """Wake an instance; return ``/status``, how many were bought, and the answer."""
    rig.guests.manners = Manners(vram_share=share)
    async with running_proxy(
        folder,
        backend=rig.open(),
        clock=rig.clock,
        OLLAMA_MODEL="tiny",
        OLLAMA_PROXY_GPU_CHECK=check,
    ) as proxy:
        async with proxy.session.post(
            f"{proxy.url}/api/generate",
            json=generate(),
            headers={"Prefer": "wait=20"},
        ) as reply:
            said = await reply.text()
        status = await proxy.status()
        if status["instance_status"] != "ready":
            await proxy.until(lambda: proxy.state == "cool-down")
        proxy.parts.pool.stop()
        await proxy.until(lambda: not rig.cloud.paid)
    return status, rig.cloud.bought, said


async def test_a_model_beside_its_gpu_is_told_and_serves(tmp_path: Path) -> None:
    async with exoscale_rig(tmp_path / "cloud") as rig:
        with structlog.testing.capture_logs() as logged:
            status, bought, said = await launched(rig, tmp_path / "p", 0.0)

    assert bought == 1
    assert '"done":true' in said
    assert status["gpu"]["used"] is False
    assert status["gpu"]["size"] > status["gpu"]["size_vram"] == 0
    assert "none of it on the GPU" in status["gpu"]["problem"]
    assert [line["event"] for line in logged].count(log.GPU_UNUSED) == 1


async def test_a_model_that_is_in_part_on_its_gpu_is_told_with_the_share(
    tmp_path: Path,
) -> None:
    async with exoscale_rig(tmp_path / "cloud") as rig:
        status, bought, _ = await launched(rig, tmp_path / "p", 0.4, "fail")

    assert bought == 1
    assert status["gpu"]["used"] is True
    assert status["gpu"]["share"] == 0.4
    assert "only 40% of the model 'tiny'" in status["gpu"]["problem"]


async def test_a_model_on_its_gpu_is_no_news(tmp_path: Path) -> None:
    async with exoscale_rig(tmp_path / "cloud") as rig:
        status, _, said = await launched(rig, tmp_path / "p", 1.0, "fail")

    assert '"done":true' in said
    assert status["gpu"]["used"] is True
    assert status["gpu"]["problem"] is None


async def test_a_launch_that_is_to_fail_is_tried_twice_and_no_more(
    tmp_path: Path,
) -> None:
    """A second machine may have the better driver; a third is not bought."""
    rig_made = exoscale_rig(tmp_path / "cloud")
    async with rig_made as rig:
        rig.guests.manners = Manners(vram_share=0.0)
        async with running_proxy(
            tmp_path / "p",
            backend=rig.open(),
            clock=rig.clock,
            OLLAMA_MODEL="tiny",
            OLLAMA_PROXY_GPU_CHECK="FAIL",
            OLLAMA_PROXY_BACKOFF="1s",
            OLLAMA_PROXY_MAX_BACKOFF="1s",
        ) as proxy:
            for _ in range(4):
                async with proxy.session.post(
                    f"{proxy.url}/api/generate",
                    json=generate(),
                    headers={"Prefer": "wait=20"},
                ) as reply:
                    assert reply.status == 503
                    said = await reply.text()
                rig.clock.ahead_s += 5.0
            status = await proxy.status()

    assert rig.cloud.bought == 2
    assert rig.cloud.paid == []
    assert "none of it on the GPU" in said
    assert status["lockout"]["reason"] == "final"
    assert status["gpu"] is None


async def test_a_model_whose_own_parameters_say_so_may_be_beside_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ollama_proxy.simulator.library.shown",
        lambda model: shown(model) | {"parameters": 'stop "x"\nnum_gpu     0'},
    )
    async with exoscale_rig(tmp_path / "cloud") as rig:
        status, bought, _ = await launched(rig, tmp_path / "p", 0.0, "fail")

    assert bought == 1
    assert status["gpu"]["used"] is False
    assert status["gpu"]["problem"] is None


async def test_a_server_of_ones_own_is_never_given_up_for_it(tmp_path: Path) -> None:
    async with running_proxy(
        tmp_path,
        backend=InProcessBackend(),
        OLLAMA_MODEL="tiny",
        OLLAMA_PROXY_GPU_CHECK="fail",
    ) as proxy:
        await proxy.wake()
        status = await proxy.status()

    assert status["gpu"]["used"] is False
    assert status["gpu"]["problem"] is None
