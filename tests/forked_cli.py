"""Commands run by a process that has loaded the package already.

Starting Python and loading 700 modules takes 0.4 s of processor time, most commands
0.05 s, and the tests run hundreds. So a process loads everything but the command line
once, and forks a child for each command, which runs as ``python -m ollama_proxy``. The
child reads its environment as usual, and no state of one command is left for the next.

Run as a program, it is that process: its argument is the socket for requests.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NoReturn

_ROOT = Path(__file__).parents[1]
_LOADED = (
    "typer",
    "uvloop",
    "rich.live",
    "ollama_proxy.cli.doctor",
    "ollama_proxy.cli.offline",
    "ollama_proxy.cli.owner_sweep",
    "ollama_proxy.cli.serve",
    "ollama_proxy.cli.status_view",
    "ollama_proxy.backends.exoscale.opening",
    "ollama_proxy.backends.fly.opening",
    "ollama_proxy.backends.ovh.opening",
)
_LARGEST_REQUEST = 100_000
_ENDED = 8
"""Bytes that tell how a command ended."""


class ForkedProcess:
    """A command that runs, with what `subprocess.Popen` has of one.

    ``ended`` is where is told how it ended.
    """

    stdout: IO[str] | None = None

    def __init__(self, pid: int, ended: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            self._ended.settimeout(timeout)
            try:
                told = self._ended.recv(_ENDED)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("ollama-proxy", timeout or 0) from None
            self.returncode = int.from_bytes(told, "little", signed=True)
            self.forget()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def forget(self) -> None:
        """Learn no more of it."""
        self._ended.close()


class ForkedCli:
    """The client's side: starts that process at the first command, ends it at exit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asks: socket.socket | None = None

    def run(
        self, arguments: tuple[str, ...], env: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; it is killed when the time is over."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = self.start(arguments, env, out.fileno(), err.fileno())
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                process.forget()
            out.seek(0)
            err.seek(0)
            words = ("ollama-proxy", *arguments)
            return subprocess.CompletedProcess(
                words, code, out.read().decode(), err.read().decode()
            )

    def start(
        self, arguments: tuple[str, ...], env: Mapping[str, str], out: int, err: int
    ) -> "ForkedProcess":
        """Begin a command that writes to these descriptors."""
        request = json.dumps({"arguments": arguments, "env": dict(env)}).encode()
        assert len(request) < _LARGEST_REQUEST
        ended, tells = socket.socketpair()
        with tells:
            socket.send_fds(self._opened(), [request], [out, err, tells.fileno()])
        return ForkedProcess(int.from_bytes(ended.recv(_ENDED), "little"), ended)

    def _opened(self) -> socket.socket:
        with self._lock:
            if self._asks is None:
                self._asks, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
                command = [sys.executable, __file__, str(theirs.fileno())]
                env = os.environ | {"PYTHONPATH": str(_ROOT)}
                process = subprocess.Popen(
                    command,
                    env=env,
                    cwd=_ROOT,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
                theirs.close()
                atexit.register(_end, self._asks, process)
            return self._asks


def _end(asks: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    asks.close()
    process.wait()


def _load() -> None:
    """Load what commands load, but the command line: that reads the environment."""
    for name in _LOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _serve(asked: socket.socket) -> None:
    """Take commands until the socket is closed; return in a child for each."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps children
    while True:
        request, fds, _, _ = socket.recv_fds(asked, _LARGEST_REQUEST, 3)
        if not request:
            os._exit(0)
        if not os.fork():
            asked.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _wait_for_child(fds[2])
            return _become(json.loads(request), fds[0], fds[1])
        for fd in fds:
            os.close(fd)


def _wait_for_child(tells: int) -> None:
    """Have a child, which returns; tell its number and how it ended, and end."""
    pid = os.fork()
    if not pid:
        os.close(tells)
        return
    os.write(tells, pid.to_bytes(_ENDED, "little"))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(tells, code.to_bytes(_ENDED, "little", signed=True))
    os._exit(0)


def _become(request: dict[str, object], out: int, err: int) -> None:
    """Be a process that was started with this command line and this environment."""
    arguments, env = request["arguments"], request["env"]
    assert isinstance(arguments, list)
    assert isinstance(env, dict)
    os.environ.clear()
    os.environ.update(env)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for fd in {out, err}:
        os.close(fd)
    sys.argv[1:] = arguments
    sys.orig_argv[:] = [sys.executable, "-m", "ollama_proxy", *arguments]


def _main() -> NoReturn:
    asked = socket.socket(fileno=int(sys.argv[1]))
    sys.path.pop(0)  # the folder of this file
    _load()
    _serve(asked)
    runpy.run_module("ollama_proxy", run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    _main()
