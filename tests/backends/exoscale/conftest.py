"""A fake Exoscale for each test, and its API."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ollama_proxy.backends.exoscale.api import ExoscaleApi
from tests.backends.exoscale.rig import Rig, exoscale_rig
from tests.fakes.exoscale.server import KEY, SECRET


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
