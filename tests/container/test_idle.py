"""A container that ends when it gets no requests, run with a real Caddy.

It is for a platform that starts it for the next caller, as Fly does, and whose own way
to stop it would not see that models are being pulled.
"""

import asyncio
import contextlib
import shutil
from pathlib import Path

import aiohttp
import pytest

from tests.container.rig import TOKEN, Container, container

pytestmark = pytest.mark.skipif(
    shutil.which("caddy") is None or not Path("/proc/net/tcp").exists(),
    reason="there is no `caddy` on the PATH, or no /proc",
)
KNOWN = {"Authorization": f"Bearer {TOKEN}"}
SERVES_FILES = (
    "truncate -s 256M $HOME/large; "
    "exec caddy file-server --listen $OLLAMA_HOST --root $HOME"
)


def told(inside: Container) -> str:
    return (inside.folder / "stderr").read_text()


async def test_what_nobody_asks_ends_by_itself() -> None:
    async with container(IDLE_S="1") as inside:
        assert await inside.ended() == 0
        assert "nobody has asked for anything for" in told(inside)


async def test_without_the_setting_it_stays() -> None:
    async with container() as inside:
        await inside.until_it_serves()
        await asyncio.sleep(2.5)
        assert inside.process.returncode is None


async def test_a_preload_is_not_cut_short_and_what_follows_is_idle() -> None:
    pull = 'sleep 4; echo "$2" >> "$(dirname "$0")/../told/done"'
    async with container(IDLE_S="1", preload="one\n", pull=pull) as inside:
        status = await inside.ended()
        done = (inside.folder / "told/done").read_text()

    assert (status, done) == (0, "one\n")


async def test_a_pause_between_two_tries_of_a_pull_is_part_of_it() -> None:
    tried = '"$(dirname "$0")/../told/tried"'
    pull = f"[ -e {tried} ] || {{ touch {tried}; exit 1; }}"
    more = {"RETRY_PAUSE": "4", "preload": "one\n", "pull": pull}
    async with container(IDLE_S="1", **more) as inside:  # type: ignore[arg-type]  # an environment
        await inside.until_it_serves()
        assert await inside.ended() == 0
        calls = (inside.folder / "told/calls").read_text().splitlines()

    assert calls.count("pull one") == 2


async def test_a_long_answer_is_not_cut_short() -> None:
    async with container(ollama=SERVES_FILES, IDLE_S="1") as inside:
        is_there = False
        async with asyncio.timeout(20):
            while not is_there:
                with contextlib.suppress(aiohttp.ClientError):
                    url = f"{inside.url}/large"
                    async with inside.session.get(url, headers=KNOWN) as answer:
                        if answer.status == 200:
                            await asyncio.sleep(4)  # it takes its time to read
                            assert inside.process.returncode is None
                            is_there = True
                await asyncio.sleep(0.05)
        status = await inside.ended()

    assert status == 0


@pytest.mark.parametrize("path", ["/-/health", "/api/tags"])
async def test_neither_health_checks_nor_strangers_keep_it(path: str) -> None:
    async with container(IDLE_S="2", POLL_S="0.5") as inside:
        await inside.until_it_serves()
        async with asyncio.timeout(30):
            while inside.process.returncode is None:
                with contextlib.suppress(aiohttp.ClientError):
                    await inside.ask(path)
                await asyncio.sleep(0.4)

        assert inside.process.returncode == 0
        assert "nobody has asked" in told(inside)
