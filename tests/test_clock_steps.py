"""The date is set by years while the proxy runs, or while it does not."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from tests.fakes.instance import InProcessBackend
from tests.proxy import ORDERS, RunningProxy, needs_fast_path, running_proxy
from tests.virtual_time import SetClock

YEARS_S = 56 * 365.25 * 86_400.0
LOAD = {"model": "tiny", "keep_alive": 300, "stream": False}


async def dates(proxy: RunningProxy) -> tuple[str, int, str, int]:
    """Return the year of each date in answers while nothing runs."""
    url = proxy.url
    await proxy.parts.pool.wake()
    await proxy.stop()
    async with proxy.session.post(f"{url}/api/generate", json=LOAD) as reply:
        created_at = (await reply.json())["created_at"]
        date = parsedate_to_datetime(reply.headers["Date"])
    async with proxy.session.get(f"{url}/api/tags") as reply:
        modified_at = (await reply.json())["models"][0]["modified_at"]
    async with proxy.session.get(f"{url}/-/journal", headers=ORDERS) as reply:
        changed_at = (await reply.json())["transitions"][0]["at"]
    changed_in = datetime.fromtimestamp(changed_at, UTC).year
    return created_at[:4], date.year, modified_at[:4], changed_in


# aiohttp writes the `Date` of its own answers by the machine's clock, which is not set.
@needs_fast_path
async def test_every_date_that_is_told_is_the_present_one_after_a_step(
    tmp_path: Path,
) -> None:
    clock = SetClock()
    async with running_proxy(
        tmp_path,
        clock=clock,
        OLLAMA_MODEL="tiny",
        OLLAMA_PROXY_LOADS_KEEP_AWAKE="false",
    ) as proxy:
        before = await dates(proxy)
        clock.date_ahead_s = YEARS_S
        after = await dates(proxy)

    assert before == ("1970", 1970, "1970", 1970)
    assert after == ("2026", 2026, "2026", 2026)


async def test_a_step_of_the_date_stops_and_ages_nothing(tmp_path: Path) -> None:
    backend, clock = InProcessBackend(), SetClock()
    async with running_proxy(
        tmp_path, backend=backend, clock=clock, OLLAMA_PROXY_MAX_LIFETIME="1d"
    ) as proxy:
        await proxy.wake()
        clock.date_ahead_s = YEARS_S
        clock.moment += 60.0
        status = await proxy.status()

        assert (status["instance_status"], status["idle_for_s"]) == ("ready", 60.0)
