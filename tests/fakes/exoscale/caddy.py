"""A real Caddy with our Caddyfile, and what systemd does beside it on an instance."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

HEARTBEAT = Path(__file__).parents[3] / "cloud-init" / "exoscale" / "heartbeat.sh"


async def run_caddy(
    caddyfile: Path, *, port: int, ollama_port: int, folder: Path, token: str
) -> asyncio.subprocess.Process:
    """Start Caddy with ``folder/link`` and ``folder/run/ollama-proxy``."""
    return await asyncio.create_subprocess_exec(
        "caddy",
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        str(caddyfile),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PORT": str(port),
            "OLLAMA_PORT": str(ollama_port),
            "LINK_DIR": str(folder / "link"),
            "RUN_DIR": str(folder / "run/ollama-proxy"),
            "LINK_TOKEN": token,
        },
    )


@contextlib.asynccontextmanager
async def heartbeat_socket(run: Path) -> AsyncIterator[None]:
    """Do what systemd does with ``Accept=yes``: a process per connection."""

    async def accept(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        process = await asyncio.create_subprocess_exec(
            "sh",
            str(HEARTBEAT),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={"ROOT": str(run.parents[1]), "PATH": os.environ["PATH"]},
        )
        said, _ = await process.communicate(request)
        writer.write(said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(accept, run / "heartbeat.sock")
    yield
    server.close()
    await server.wait_closed()
