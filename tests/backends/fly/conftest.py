"""A fake Fly for each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import LogCapture

from ollama_proxy.backends.fly import api
from tests.backends.fly.rig import Rig, fly_rig
from tests.fakes.fly.server import TOKEN, FlyServer


@pytest.fixture(autouse=True)
def no_secret_is_told(
    errors_logged: LogCapture, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    """Look through everything that a test printed or logged."""
    yield
    told = f"{capfd.readouterr()} {errors_logged.entries}"
    for secret in (TOKEN, "GUARD_TOKEN"):
        assert secret not in told


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with fly_rig(tmp_path) as made:
        yield made


@pytest.fixture
def without_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lift the limits on both sides: for tests in which time is hastened."""
    monkeypatch.setattr(FlyServer, "_pace", lambda *_args: None)
    monkeypatch.setattr(api, "_ACTIONS", (10_000, 1.0))
    monkeypatch.setattr(api, "_LOOKS", (10_000, 1.0))
