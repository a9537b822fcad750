"""Every way to end the proxy that is not SIGTERM, as a process."""

import asyncio
import json
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ollama_proxy.base import log
from ollama_proxy.server.end_signals import EndSignals
from tests.black_box import (
    PROGRAM,
    Launch,
    ProxyProcess,
    clean_environment,
    launched_proxy,
    simulators,
)
from tests.cli.test_serve import HELLO, until_ready
from tests.terminal import Terminal

LONG = {"OLLAMA_SIMULATOR_RATE": "30", "OLLAMA_PROXY_STOP_ON_EXIT": "true"}
HUP, TERM, INT = signal.SIGHUP, signal.SIGTERM, signal.SIGINT


class Stream:
    """A client that reads one long answer in a thread."""

    def __init__(self, proxy: ProxyProcess) -> None:
        self._proxy = proxy
        self._got: list[bytes] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        proxy.until(lambda: proxy.get("/status")["in_flight"] == 1)

    def _read(self) -> None:
        try:
            self._got.append(self._proxy.post("/api/generate", HELLO)[1])
        except (OSError, ValueError, EOFError):
            return

    @property
    def is_whole(self) -> bool:
        """Whether the answer ended; waits for that."""
        self._thread.join(20)
        lines = self._got[0].splitlines() if self._got else [b"{}"]
        return json.loads(lines[-1]).get("done") is True


def serving(proxy: ProxyProcess) -> Stream:
    proxy.post("/api/generate", HELLO)
    until_ready(proxy)
    return Stream(proxy)


def pending(signals: EndSignals) -> list[signal.Signals]:
    found = []
    while True:
        step = signals.next()
        try:
            step.send(None)
        except StopIteration as got:
            found.append(got.value)
        else:
            step.close()
            return found


@pytest.mark.parametrize(
    ("has_terminal", "sent", "taken"),
    [
        (True, [HUP], [HUP]),
        (True, [HUP, HUP], [HUP]),
        (True, [HUP, HUP, TERM], [HUP, TERM]),
        (True, [TERM, HUP], [TERM]),
        (True, [TERM, TERM], [TERM, TERM]),
        (True, [signal.SIGQUIT, INT], [signal.SIGQUIT, INT]),
        (False, [HUP, HUP], []),
        (False, [HUP, TERM], [TERM]),
    ],
)
async def test_what_ends_the_proxy_and_what_cuts(
    has_terminal: bool,
    sent: list[signal.Signals],
    taken: list[signal.Signals],
) -> None:
    signals = EndSignals(has_terminal=has_terminal)
    for number in sent:
        signals.note(number)

    assert pending(signals) == taken


async def test_more_signals_than_fit_are_no_more_than_enough() -> None:
    signals = EndSignals(has_terminal=True)
    for _ in range(1000):
        signals.note(TERM)

    assert 2 <= len(pending(signals)) < 1000


async def test_a_hang_up_without_a_terminal_is_logged() -> None:
    with capture_logs() as logged:
        EndSignals(has_terminal=False).note(HUP)

    assert [entry["event"] for entry in logged] == [log.SIGNAL_IGNORED]


async def test_signals_that_were_ignored_stay_so_but_sigterm() -> None:
    numbers = (HUP, INT, signal.SIGQUIT, TERM)
    before = {number: signal.getsignal(number) for number in numbers}
    loop = asyncio.get_running_loop()
    try:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        EndSignals(has_terminal=True).watch(loop)
        ignored = [n for n in numbers if signal.getsignal(n) is signal.SIG_IGN]
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    assert ignored == [HUP, INT, signal.SIGQUIT]


def test_a_terminal_that_closes_lets_a_stream_end_and_stops_the_instance(
    tmp_path: Path,
) -> None:
    terminal = Terminal(tmp_path / "terminal.log")
    with launched_proxy(tmp_path / "s", Launch(terminal=terminal), LONG) as proxy:
        stream = serving(proxy)
        terminal.hang_up()
        is_whole = stream.is_whole
        code = proxy.process.wait(30)

    assert is_whole
    assert code == 0
    assert simulators(tmp_path / "s") == []


@pytest.mark.parametrize("sent", [[HUP], [HUP, HUP], [signal.SIGQUIT], [INT]])
def test_at_a_terminal_these_end_as_sigterm_does(
    tmp_path: Path, sent: list[signal.Signals]
) -> None:
    terminal = Terminal(tmp_path / "terminal.log")
    with launched_proxy(tmp_path / "s", Launch(terminal=terminal), LONG) as proxy:
        stream = serving(proxy)
        for number in sent:
            proxy.process.send_signal(number)
            time.sleep(0.05)
        is_whole = stream.is_whole
        code = proxy.process.wait(30)
    terminal.hang_up()

    assert is_whole
    assert code == 0
    assert simulators(tmp_path / "s") == []
    assert "Traceback" not in (tmp_path / "terminal.log").read_text()


def test_a_second_signal_cuts_what_a_hang_up_lets_end(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "terminal.log")
    slow = LONG | {"OLLAMA_SIMULATOR_RATE": "1"}
    with launched_proxy(tmp_path / "s", Launch(terminal=terminal), slow) as proxy:
        stream = serving(proxy)
        proxy.process.send_signal(HUP)
        time.sleep(0.2)
        assert proxy.process.poll() is None
        proxy.process.send_signal(TERM)
        code = proxy.process.wait(30)
    terminal.hang_up()

    assert code == 0
    assert not stream.is_whole
    assert simulators(tmp_path / "s") == []


def test_a_hang_up_without_a_terminal_ends_nothing(tmp_path: Path) -> None:
    with launched_proxy(tmp_path / "s", Launch(has_session=True), LONG) as proxy:
        stream = serving(proxy)
        proxy.process.send_signal(HUP)
        proxy.until(lambda: "signal.ignored" in proxy.log.read_text())
        assert stream.is_whole
        assert proxy.get("/status")["provisioning_status"] == "ready"

        assert proxy.terminate() == 0


def test_under_nohup_a_terminal_that_closes_ends_nothing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "terminal.log")
    launch = Launch(terminal=terminal, shell="trap '' HUP INT QUIT; exec \"$@\"")
    with launched_proxy(tmp_path / "s", launch, LONG) as proxy:
        stream = serving(proxy)
        terminal.hang_up()
        for number in (HUP, INT, signal.SIGQUIT):
            proxy.process.send_signal(number)
        assert stream.is_whole
        status, _ = proxy.post("/api/generate", HELLO)
        assert status == 200

        assert proxy.terminate() == 0
    assert simulators(tmp_path / "s") == []


def test_streams_that_were_closed_before_the_start_end_nothing(tmp_path: Path) -> None:
    launch = Launch(shell='exec "$@" <&- >&- 2>&-')
    with launched_proxy(tmp_path / "s", launch, {}) as proxy:
        folder = Path(f"/proc/{proxy.process.pid}/fd")
        leads = [str((folder / str(number)).readlink()) for number in (0, 1, 2)]
        status, _ = proxy.post("/api/generate", HELLO, Prefer="wait=20")
        code = proxy.terminate()

    assert leads == ["/dev/null"] * 3
    assert (status, code) == (200, 0)


def test_output_that_can_never_be_written_changes_no_exit_code(tmp_path: Path) -> None:
    launch = Launch(shell='unset PYTHONUNBUFFERED; exec "$@" >/dev/full 2>&1')
    with launched_proxy(tmp_path / "s", launch, {}) as proxy:
        status, _ = proxy.post("/api/generate", HELLO, Prefer="wait=20")
        code = proxy.terminate()

    assert (status, code) == (200, 0)


def test_a_command_whose_output_is_closed_is_quiet(tmp_path: Path) -> None:
    command = f"{' '.join(PROGRAM)} --version >&-"
    done = subprocess.run(
        ["sh", "-c", command],
        env=clean_environment(),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")


def test_a_command_whose_output_nobody_reads_is_quiet(tmp_path: Path) -> None:
    command = f"{' '.join(PROGRAM)} --help | true"
    done = subprocess.run(
        ["sh", "-c", command],
        env=clean_environment(),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )

    assert done.stderr == b""
