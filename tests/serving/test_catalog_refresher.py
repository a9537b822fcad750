"""The catalogue is asked for until it is there."""

from pathlib import Path

import pytest

from ollama_proxy.base.timing import Timing
from ollama_proxy.core.lifecycle.record import Fault
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.readiness import HttpProbe, PreparationError
from tests.proxy import running_proxy


class StammeringProbe:
    """Can't tell of its models the first ``failures`` times, and then can."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked = 0

    async def contents(self, _upstream: Upstream) -> Snapshot:
        self.asked += 1
        if self.asked == 1:
            return Snapshot(b"<html>", "0.33.0")
        if self.asked <= self.failures:
            raise PreparationError(Fault("probe", "not now"))
        return Snapshot(b'{"models":[{"name":"late:latest"}]}', "0.33.0")


@pytest.mark.parametrize("failures", [1, 3])
async def test_a_refresh_that_failed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    probe = StammeringProbe(failures)
    monkeypatch.setattr(HttpProbe, "contents", lambda _, up: probe.contents(up))
    async with running_proxy(tmp_path, timing=Timing(catalog_pause_s=0.01)) as proxy:
        await proxy.wake()
        await proxy.until(lambda: proxy.catalogued is not None)
        await proxy.stop()
        async with proxy.session.get(f"{proxy.url}/api/tags") as answer:
            listed = await answer.json()

    assert probe.asked == failures + 1
    assert [model["name"] for model in listed["models"]] == ["late:latest"]


async def test_nobody_is_asked_once_there_is_no_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = StammeringProbe(10_000)
    monkeypatch.setattr(HttpProbe, "contents", lambda _, up: probe.contents(up))
    timing = Timing(catalog_pause_s=0.01, catalog_pause_max_s=0.01)
    async with running_proxy(tmp_path, timing=timing) as proxy:
        await proxy.wake()
        await proxy.until(lambda: probe.asked > 2)
        await proxy.stop()
        asked = probe.asked
        for _ in range(20):
            await proxy.status()

    assert probe.asked <= asked + 1
