"""Start the proxies that are compared, each a process on a port of its own."""

import asyncio
import contextlib
import os
import resource
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

ROOT = Path(__file__).parents[1]
PROCESSORS: list[int] = psutil.Process().cpu_affinity() or [0]
"""The processors that this process could run on at first: Linux only."""

MOST_STREAMS = (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200) // 2
"""How many streams fit through a process: each takes two descriptors."""

_START_S = 60.0
_END_S = 10.0

_NGINX = """\
daemon off; worker_processes 1;
pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 65536; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_max_body_size 0; keepalive_requests 100000000;
  upstream ollama {{ server 127.0.0.1:{upstream}; keepalive 256;
                     keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=16384;
    location / {{
      proxy_pass http://ollama; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_read_timeout 1h;
      proxy_buffering off; proxy_request_buffering off;
    }}
  }}
}}
"""
_HAPROXY = """\
global
  maxconn {streams}
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  option http-no-delay
  http-reuse always
frontend client
  bind 127.0.0.1:{port} backlog 16384
  default_backend ollama
backend ollama
  server one 127.0.0.1:{upstream}
"""
LITELLM_KEY = "sk-bench"
"""LiteLLM refuses to start without one."""

_LITELLM_ON = ("litellm", "--host", "127.0.0.1", "--port")
_LITELLM = """\
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
"""


@dataclass(frozen=True, slots=True)
class Running:
    """Takes requests; ``process`` is None for the upstream itself."""

    name: str
    port: int
    process: psutil.Process | None
    is_native: bool = True

    def cpu_s(self) -> float:
        """Return the processor time it and its children have taken, in seconds."""
        return sum(_cpu_s(one) for one in self._tree())

    def memory(self) -> int:
        """Return its resident memory and its children's, in bytes."""
        return sum(one.memory_info().rss for one in self._tree())

    def pin(self) -> None:
        """Leave it the last processor to itself, where the system can do that."""
        for one in self._tree():
            one.cpu_affinity([PROCESSORS[-1]])

    def _tree(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        return [self.process, *self.process.children(recursive=True)]


def _cpu_s(process: psutil.Process) -> float:
    """Return what a process used; to the nanosecond where the kernel tells."""
    tasks = Path(f"/proc/{process.pid}/task")
    with contextlib.suppress(OSError):
        spent = [
            int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()
        ]
        if spent:
            return sum(spent) / 1e9
    times = process.cpu_times()
    return float(times.user + times.system)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Kind:
    """Says how a proxy is started. ``program`` must be on the PATH."""

    program: str
    command: Callable[[int, int, Path], Sequence[str]]
    config: str = ""
    environment: Callable[[int, int, Path], Mapping[str, str]] = field(
        default=lambda *_: {}
    )
    ready_path: str = "/api/version"
    is_native: bool = True


def _with_config(*command: str) -> Callable[[int, int, Path], Sequence[str]]:
    return lambda _port, _upstream, folder: [*command, str(folder / "config")]


def _ours(port: int, upstream: int, folder: Path) -> Mapping[str, str]:
    return {
        "OLLAMA_PROXY_BACKEND": "static",
        "OLLAMA_PROXY_UPSTREAM_URL": f"http://127.0.0.1:{upstream}",
        "OLLAMA_PROXY_STATE_DIR": str(folder / "state"),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
    }


KINDS = {
    "ours": Kind(
        sys.executable,
        lambda _p, _u, _f: [sys.executable, "-m", "ollama_proxy", "serve"],
        environment=_ours,
    ),
    "nginx": Kind("nginx", _with_config("nginx", "-c"), _NGINX),
    "haproxy": Kind("haproxy", _with_config("haproxy", "-db", "-f"), _HAPROXY),
    "aiohttp": Kind(
        sys.executable,
        lambda p, u, _f: [sys.executable, "-m", "bench.plain", str(p), str(u)],
    ),
    "litellm": Kind(
        "litellm",
        lambda p, _u, f: [*_LITELLM_ON, str(p), "--config", str(f / "config")],
        _LITELLM,
        environment=lambda _p, _u, _f: {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MASTER_KEY": LITELLM_KEY,
        },
        ready_path="/health/liveliness",
        is_native=False,
    ),
}  # fmt: skip
"""Every proxy that is known here, by its name."""


def found(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the proxies that can be run here, and those that can't."""
    there = [name for name in names if shutil.which(KINDS[name].program)]
    return there, [name for name in names if name not in there]


@contextlib.asynccontextmanager
async def running(name: str, upstream: int, folder: Path) -> AsyncIterator[Running]:
    """Run a proxy before the upstream's port until the block ends."""
    kind, port = KINDS[name], free_port()
    folder.mkdir(parents=True)  # noqa: ASYNC240 - nothing else runs yet
    config = kind.config.format(
        port=port, upstream=upstream, folder=folder, streams=MOST_STREAMS
    )
    (folder / "config").write_text(config)
    environment = os.environ | dict(kind.environment(port, upstream, folder))
    command = kind.command(port, upstream, folder)
    async with process(command, folder / "log", environment) as one:
        await until_answers(port, kind.ready_path, folder / "log")
        proxy = Running(name, port, psutil.Process(one.pid), kind.is_native)
        proxy.pin()
        yield proxy


@contextlib.asynccontextmanager
async def process(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command until the block ends, and see it end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as told:
        one = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=told,
            stderr=told,
        )
    try:
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            one.terminate()
        try:
            async with asyncio.timeout(_END_S):
                await one.wait()
        except TimeoutError:
            one.kill()
            await one.wait()


async def until_answers(port: int, path: str, log: Path) -> None:
    """Wait until a GET is answered with 200."""
    deadline = asyncio.get_running_loop().time() + _START_S
    async with aiohttp.ClientSession() as session:
        while asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(aiohttp.ClientError):
                url = f"http://127.0.0.1:{port}{path}"
                async with session.get(url) as answer:
                    if answer.ok:
                        return
            await asyncio.sleep(0.1)
    said = log.read_text("utf-8", "replace")[-2000:]  # noqa: ASYNC240 - it is over
    raise TimeoutError(f"nothing answers {path} on port {port}; it said: {said}")


def upstream_command(port: int) -> list[str]:
    """Return the command of the server behind the proxies."""
    return [sys.executable, "-m", "bench.upstream", str(port)]
