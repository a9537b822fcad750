"""A fake AI Deploy for each test, by either driver."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import LogCapture

from tests.backends.ovh.rig import DRIVERS, Rig, ovh_rig
from tests.fakes.ovh.command import PASSWORD
from tests.fakes.ovh.server import AI_TOKEN, CALL_TOKEN


@pytest.fixture(autouse=True)
def no_secret_is_told(
    errors_logged: LogCapture, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    """Look through everything that a test printed or logged."""
    yield
    told = f"{capfd.readouterr()} {errors_logged.entries}"
    for secret in (AI_TOKEN, CALL_TOKEN, PASSWORD, "GUARD_TOKEN"):
        assert secret not in told


@pytest.fixture(params=DRIVERS)
async def rig(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with ovh_rig(tmp_path, request.param) as made:
        yield made
        argv = [word for words in made.command.argv for word in words]
        assert not any(PASSWORD in word or "token-" in word for word in argv)
