"""A fake Fly for each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import LogCapture

from tests.backends.fly.rig import Rig, fly_rig
from tests.fakes.fly.server import TOKEN


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
async def rig(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    is_paced = "without_pace" not in request.fixturenames
    async with fly_rig(tmp_path, is_paced=is_paced) as made:
        yield made


@pytest.fixture
def without_pace() -> None:
    """Have `rig` lift its limits: for tests in which time is hastened."""
