"""The proxy as a process of its own, as ``make run`` starts it."""

import atexit
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import psutil

from ollama_proxy.base.pinned_tls import first_certificate, pinned
from ollama_proxy.base.serving_address import running_proxy
from ollama_proxy.gateway.order_token import read_order_token
from tests.forked_cli import ForkedCli, ForkedProcess
from tests.processes import living
from tests.proxy import HAS_FAST_PATH
from tests.terminal import Terminal

ROOT = Path(__file__).parents[1]
PROGRAM = (sys.executable, "-m", "ollama_proxy")
_SETTINGS = (
    "OLLAMA_",
    "LOG_LEVEL",
    "PRELOAD_",
    "EXOSCALE_",
    "OVH",
    "GPU_",
    "FLY_",
    "HEARTBEAT_",
    "NODE_",
)


_STATE = tempfile.mkdtemp(prefix="ollama-proxy-tests-")
atexit.register(shutil.rmtree, _STATE, ignore_errors=True)


def clean_environment(**env: str) -> dict[str, str]:
    """Return this process' environment without settings of its own, plus ``env``.

    Without a state folder in ``env`` it names a new one: the user's may be in use.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_SETTINGS)
    }
    fast = {} if HAS_FAST_PATH else {"OLLAMA_PROXY_FAST_PATH": "false"}
    return kept | {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": _STATE} | fast | env


_FORKED = ForkedCli()


@dataclass(slots=True)
class ProxyProcess:
    """A running ``ollama-proxy serve``; ``trusted``: how it is asked on TLS."""

    process: subprocess.Popen[str] | ForkedProcess
    url: str
    log: Path
    state: Path
    trusted: ssl.SSLContext | None = None

    def orders(self) -> dict[str, str]:
        """Return what proves that an order comes from the proxy's own user."""
        return {"Authorization": f"Bearer {read_order_token(self.state)}"}

    def _headers(self, path: str) -> dict[str, str]:
        return self.orders() if path.startswith("/-/") else {}

    def get(self, path: str, **headers: str) -> dict[str, Any]:
        """Return the answer to a GET; header names have ``_`` for ``-``."""
        trusted = self.trusted if self.url.startswith("https") else None
        sent = self._headers(path) | _named(headers)
        asked = urllib.request.Request(self.url + path, headers=sent)
        with urllib.request.urlopen(asked, timeout=10, context=trusted) as reply:
            body: dict[str, Any] = json.load(reply)
            return body

    def post(self, path: str, body: object, **headers: str) -> tuple[int, bytes]:
        """Return status and body of a POST; header names have ``_`` for ``-``."""
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode(),
            headers=self._headers(path) | _named(headers),
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return int(reply.status), bytes(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def raw(self, request: bytes, silent_s: float = 0.2) -> bytes:
        """Send bytes; return the response until it is closed, reset or silent."""
        port, came = int(self.url.rpartition(":")[2]), b""
        with socket.create_connection(("127.0.0.1", port), silent_s) as connection:
            connection.sendall(request)
            with contextlib.suppress(TimeoutError, ConnectionError):
                while part := connection.recv(1 << 16):
                    came += part
        return came

    def until(self, condition: Callable[[], bool], within_s: float = 20.0) -> None:
        deadline = time.perf_counter() + within_s
        while not condition():
            assert time.perf_counter() < deadline, self.log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it as nothing may be caught."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=30)


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def listens(proxy: ProxyProcess, state: Path) -> bool:
    """Learn where it listens, from its state folder; tell whether it does yet."""
    assert proxy.process.poll() is None, proxy.log.read_text()
    running = running_proxy(state)
    if running is not None:
        scheme = running.url.partition(":")[0]
        proxy.url = f"{scheme}://127.0.0.1:{running.url.rpartition(':')[2]}"
    return running is not None


def answers(proxy: ProxyProcess) -> bool:
    try:
        return bool(proxy.get("/healthz"))
    except OSError:
        assert proxy.process.poll() is None, proxy.log.read_text()
        return False


@dataclass(frozen=True, slots=True)
class Launch:
    """How a proxy is started; by default its output goes to a file.

    - ``has_session``: in a session of its own, without a controlling terminal.
    - ``terminal``: with this controlling terminal.
    - ``shell``: by this shell command, in which "$@" is the program.
    - ``host``: where it listens, on a port that the system chooses.
    - ``options``: of ``serve``.
    - ``program``: the command that runs the proxy.
    - ``is_forked``: in a child of a process that has loaded the package, as `run_cli`.
    """

    pipe: bool = False
    host: str = "127.0.0.1"
    options: tuple[str, ...] = ()
    program: tuple[str, ...] = PROGRAM
    has_session: bool = False
    terminal: Terminal | None = None
    shell: str = ""
    is_forked: bool = False

    def begin(
        self, env: dict[str, str], out: TextIO
    ) -> "subprocess.Popen[str] | ForkedProcess":
        """Run the command."""
        if self.is_forked:
            words = ("serve", *self.options)
            return _FORKED.start(words, env, out.fileno(), out.fileno())
        command, theirs = [*self.program, "serve", *self.options], None
        if self.terminal is not None:
            theirs = self.terminal.theirs
            command = [*self.terminal.command, *command]
        if self.shell:
            command = ["sh", "-c", self.shell, "sh", *command]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=theirs,
            stdout=subprocess.PIPE if self.pipe else theirs or out,
            stderr=subprocess.STDOUT,
            start_new_session=self.has_session or self.terminal is not None,
            text=True,
        )


_NUMBERS = itertools.count(1)


@contextlib.contextmanager
def proxy_process(
    state: Path, *, pipe: bool = False, **env: str
) -> Iterator[ProxyProcess]:
    """Run the proxy on a port of the system's choice with its state in ``state``.

    Its output goes to a file beside it, or into a ``pipe``.
    """
    with launched_proxy(state, Launch(pipe=pipe), env) as proxy:
        yield proxy


@contextlib.contextmanager
def forked_proxy(state: Path, **env: str) -> Iterator[ProxyProcess]:
    """Run the proxy as `proxy_process` does, begun in a fifth of the processor time.

    For what is not about how a process begins. ``env`` is of our settings alone: others
    Python reads at its start.
    """
    assert all(name.startswith(_SETTINGS) for name in env)
    with launched_proxy(state, Launch(is_forked=True), env) as proxy:
        yield proxy


@contextlib.contextmanager
def launched_proxy(
    state: Path, launch: Launch, env: Mapping[str, str]
) -> Iterator[ProxyProcess]:
    """Run the proxy as `proxy_process` does, begun in a way of its own."""
    settings = {
        "OLLAMA_HOST": f"{launch.host}:0",
        "OLLAMA_PROXY_STATE_DIR": str(state),
        "OLLAMA_PROXY_SIMULATOR": "always",
        "OLLAMA_SIMULATOR_LOAD": "0.2",
        "OLLAMA_SIMULATOR_PULL": "0.4",
        "OLLAMA_SIMULATOR_RATE": "200",
    }
    log = state.parent / f"{state.name}-{next(_NUMBERS)}.log"
    with log.open("w") as out:
        process = launch.begin(clean_environment(**{**settings, **env}), out)
    shown = env.get("OLLAMA_PROXY_TLS_CERT")
    trusted = pinned([first_certificate(Path(shown).read_text())]) if shown else None
    proxy = ProxyProcess(process, "", log, state, trusted)
    try:
        proxy.until(lambda: listens(proxy, state) and answers(proxy))
        yield proxy
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


_COMMAND_S = 60.0


def begin_forked(
    words: tuple[str, ...], settings: Mapping[str, str], out: TextIO
) -> ForkedProcess:
    """Begin a command in a child of a process that has loaded the package."""
    env = clean_environment(**settings)
    return _FORKED.start(words, env, out.fileno(), out.fileno())


def run_cli(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a child of a process that has loaded the package.

    It gets a new process if ``env`` has more than settings: Python may read those at
    its start.
    """
    if all(name.startswith(_SETTINGS) for name in env):
        return _FORKED.run(arguments, clean_environment(**env), _COMMAND_S)
    return run_process(*arguments, **env)


def run_process(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a process of its own, from the start of Python on."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=ROOT,
        env=clean_environment(**env),
        capture_output=True,
        text=True,
        timeout=_COMMAND_S,
        check=False,
    )


def simulators(state: Path) -> list[psutil.Process]:
    """Return the living simulators that the proxy with this state started."""
    return living(
        lambda process: (
            process.environ().get("OLLAMA_PROXY_STATE_DIR") == str(state)
            and "ollama_proxy.simulator" in process.cmdline()
        )
    )
