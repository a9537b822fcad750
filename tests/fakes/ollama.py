"""A real ``ollama serve`` on a port of its own, for tests that want the truth."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from tests.ports import held_port


@contextlib.asynccontextmanager
async def real_ollama() -> AsyncIterator[str]:
    """Run ``ollama serve`` with the environment's model store; yield its URL."""
    port = held_port()  # with port 0 it prints the port only in a log for people
    environment = os.environ | {
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_NO_CLOUD": "1",
    }
    process = await asyncio.create_subprocess_exec(
        "ollama",
        "serve",
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            while not await answers(port):
                await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def answers(port: int) -> bool:
    """Tell whether anything listens on a port of this machine."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
