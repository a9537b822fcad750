"""A fake Exoscale for each test, and its API."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import LogCapture

from ollama_proxy.backends.exoscale.api import ExoscaleApi
from tests.backends.exoscale.rig import Rig, exoscale_rig
from tests.fakes.exoscale.server import KEY, SECRET


@pytest.fixture(autouse=True)
def no_secret_is_told(
    errors_logged: LogCapture, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    """Look through everything that a test printed or logged."""
    yield
    told = f"{capfd.readouterr()} {errors_logged.entries}"
    assert SECRET not in told
    assert "PRIVATE KEY" not in told
    assert "LINK_TOKEN" not in told


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with exoscale_rig(tmp_path) as made:
        yield made


@pytest.fixture
async def api(rig: Rig) -> AsyncIterator[ExoscaleApi]:
    opened = ExoscaleApi(
        "at-vie-2", endpoint=rig.server.url, key=KEY, secret=SECRET, clock=rig.clock
    )
    yield opened
    opened.close()
