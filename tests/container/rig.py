"""The container's inside on this machine: entrypoint, a real Caddy, a stub `ollama`."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.ports import held_port

SOURCE = Path(__file__).parents[2] / "cloud-init" / "container"
TOKEN = "0123456789abcdef"
USER = 42420
ANSWERS = "exec caddy respond --listen $OLLAMA_HOST 'Ollama is running'"


@dataclass(slots=True)
class Container:
    """A started entrypoint; ``folder`` is where its stub records its arguments."""

    process: asyncio.subprocess.Process
    folder: Path
    url: str
    session: aiohttp.ClientSession

    async def ask(
        self, path: str, *, method: str = "GET", **headers: str
    ) -> tuple[int, str]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(
            method, self.url + path, headers=sent
        ) as answer:
            return answer.status, await answer.text()

    async def beat(self) -> int:
        known = {"Authorization": f"Bearer {TOKEN}"}
        return (await self.ask("/-/heartbeat", method="POST", **known))[0]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.02)

    async def until_it_serves(self) -> None:
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    if (await self.ask("/-/health"))[0] == 200:
                        return
                assert self.process.returncode is None, "the entrypoint has ended"
                await asyncio.sleep(0.05)

    async def ended(self) -> int:
        async with asyncio.timeout(10):
            return await self.process.wait()

    def members(self) -> list[int]:
        """Return the processes of the container: it has a group of its own."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (path / "stat").read_text().rpartition(") ")[2].split()
                if int(fields[2]) == self.process.pid and fields[0] != "Z":
                    found.append(int(path.name))
        return found

    def users(self) -> set[str]:
        lines = [
            Path(f"/proc/{pid}/status").read_text().splitlines()
            for pid in self.members()
        ]
        return {text.split()[1] for one in lines for text in one if "Uid:" in text}


@contextlib.asynccontextmanager
async def container(
    *,
    ollama: str = ANSWERS,
    as_root: bool = False,
    preload: str = "",
    read_only: bool = False,
    has_models: bool = True,
    pull: str = "exit 0",
    **env: str,
) -> AsyncIterator[Container]:
    """Start the entrypoint as a platform does; ``ollama`` is what its stub serves by,
    ``pull`` what it does with a model.
    If ``read_only``, its store of models is root's; empty unless ``has_models``.

    The folder is not pytest's own, which other users can't enter.
    """
    folder = Path(tempfile.mkdtemp(prefix="container-"))
    drop = os.getuid() == 0 and not as_root
    _lay_out(folder, ollama, preload, pull)
    if read_only and has_models:
        (folder / "models/blobs").mkdir()
    if drop:
        os.chown(folder / "home", USER, USER)
        if not read_only:
            os.chown(folder / "models", USER, USER)
    port = held_port()  # Caddy and the stub of Ollama need theirs as arguments
    settings = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "HOME": f"{folder}/home",
        "TMPDIR": "/tmp",
        "ETC": f"{folder}/etc",
        "OLLAMA_MODELS": f"{folder}/models",
        "OLLAMA_PORT": str(held_port()),
        "PORT": str(port),
        "GUARD_TOKEN": TOKEN,
        "POLL_S": "0.1",
    }
    command = [f"{folder}/entrypoint"]
    if drop:
        ids = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        command = ["setpriv", *ids, "--", *command]
    with (folder / "stderr").open("w") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=settings | env,
            cwd=folder,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        async with aiohttp.ClientSession() as session:
            yield Container(process, folder, f"http://127.0.0.1:{port}", session)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        shutil.rmtree(folder)


def _lay_out(folder: Path, ollama: str, preload: str, pull: str) -> None:
    """Put the image's files, and a stub `ollama`, below a folder."""
    folder.chmod(0o755)
    for part in ("bin", "etc", "home", "told", "models"):
        (folder / part).mkdir()
    (folder / "told").chmod(0o777)
    shutil.copy(SOURCE / "Caddyfile", folder / "etc")
    (folder / "etc/preload-models.txt").write_bytes(preload.encode())
    shutil.copy(SOURCE / "entrypoint.sh", folder / "entrypoint")
    (folder / "entrypoint").chmod(0o755)
    stub = folder / "bin/ollama"
    stub.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/told/calls\n'
        f'[ "$1" != pull ] || {{ {pull}; }}\n'
        f'[ "$1" = serve ] || exit 0\nenv > {folder}/told/env\n{ollama}\n'
    )
    stub.chmod(0o755)
