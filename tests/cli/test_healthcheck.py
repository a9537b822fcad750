"""The health check: the right address, no proxy between, little to load."""

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ollama_proxy.base.serving_address import written_down
from ollama_proxy.cli.healthcheck import UnhealthyError, ask
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.black_box import (
    ROOT,
    Launch,
    clean_environment,
    forked_proxy,
    launched_proxy,
    run_cli,
    run_process,
)
from tests.ports import address_of_nobody, held_port

HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + b'{"status":"ok"}'
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")


@contextlib.contextmanager
def answering(
    answer: Callable[[socket.socket], None], host: str = "127.0.0.1"
) -> Iterator[tuple[int, list[bytes]]]:
    """Listen, and answer each request; yield the port and what was asked."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.bind((host, 0))
    listening.listen()
    asked: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                asked.append(connection.recv(4096))
                answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1], asked
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


def saying(text: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(text)


def asked_of(env: dict[str, str], file: str | None = None) -> str:
    return ask(env, file, now=time.perf_counter, timeout_s=2)


@pytest.mark.parametrize("has_file", [False, True])
def test_a_proxy_that_serves_is_healthy(tmp_path: Path, has_file: bool) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        env = {"OLLAMA_HOST": proxy.url}
        options: tuple[str, ...] = ()
        if has_file:
            (tmp_path / "f.toml").write_text(f"listen = '{env.pop('OLLAMA_HOST')}'\n")
            options = ("--config", str(tmp_path / "f.toml"))
        done = run_cli("healthcheck", *options, **env)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{proxy.url} serves\n"


def test_where_nothing_listens_nothing_is_healthy() -> None:
    url = f"http://{address_of_nobody()}"
    done = run_cli("healthcheck", OLLAMA_HOST=url)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"ollama-proxy: nothing serves at {url} (")
    assert len(done.stderr.splitlines()) == 1


def test_no_proxy_is_asked_for_the_own_machine() -> None:
    with (
        answering(saying(b"HTTP/1.1 403 Forbidden\r\n\r\n")) as (corporate, seen),
        answering(saying(HEALTHY)) as (port, asked),
    ):
        proxies = dict.fromkeys(PROXIES, f"http://127.0.0.1:{corporate}")
        done = run_cli("healthcheck", OLLAMA_HOST=f"127.0.0.1:{port}", **proxies)

    assert done.returncode == 0
    assert (len(asked), seen) == (1, [])


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "", "[::]", "127.0.0.1", "localhost", "'0.0.0.0"]
)
def test_it_asks_on_this_machine_where_everybody_is_served(host: str) -> None:
    with answering(saying(HEALTHY)) as (port, asked):
        asked_of({"OLLAMA_HOST": f"{host}:{port}"})

    assert asked[0].startswith(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")


def test_it_asks_over_ipv6_where_that_is_meant() -> None:
    with answering(saying(HEALTHY), "::1") as (port, _):
        assert asked_of({"OLLAMA_HOST": f"[::1]:{port}"}) == f"http://[::1]:{port}"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "answers '503', not 200"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "answers '404', not 200"),
        (b"HTTP/1.1 2000 x\r\n\r\n", "answers '2000', not 200"),
        (b"HTTP/1.1\r\n\r\n200", "answers 'no HTTP'"),
        (b"220 mail.example 200\r\n", "answers 'no HTTP'"),
        (b"\0\xff" * 4000, "answers 'no HTTP'"),
        (b"", "answers 'no HTTP'"),
    ],
)
def test_any_other_answer_is_told(answer: bytes, told: str) -> None:
    with (
        answering(saying(answer)) as (port, _),
        pytest.raises(UnhealthyError, match=told),
    ):
        asked_of({"OLLAMA_HOST": f":{port}"})


def drips(connection: socket.socket) -> None:
    for _ in range(100):
        connection.sendall(b"H")
        time.sleep(0.05)


@pytest.mark.parametrize("answer", [drips, lambda _: time.sleep(1)])
def test_the_wait_has_an_end_however_the_answer_comes(
    answer: Callable[[socket.socket], None],
) -> None:
    with answering(answer) as (port, _):
        env = {"OLLAMA_HOST": f":{port}"}
        with pytest.raises(UnhealthyError, match=r"does not answer in 0\.3 s"):
            ask(env, None, now=time.perf_counter, timeout_s=0.3)


def test_the_time_of_connecting_counts() -> None:
    moments = itertools.chain([0.0], itertools.repeat(5.0))

    with pytest.raises(UnhealthyError, match="does not answer in 4 s"):
        ask({"OLLAMA_HOST": ":1"}, None, now=lambda: next(moments))


def test_a_file_in_the_working_folder_says_where_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with answering(saying(HEALTHY)) as (port, asked):
        (tmp_path / "ollama-proxy.toml").write_text(f"listen = '[::ffff:0:0]:{port}'")
        asked_of({"OLLAMA_HOST": f":{port}"})  # the environment wins
        (tmp_path / "ollama-proxy.toml").write_text(f"listen = ':{port}'")
        asked_of({"OLLAMA_HOST": " "})

    assert len(asked) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("listen = ", "ollama-proxy.toml: "),
        ("\xff", "ollama-proxy.toml: "),
        ("listen = 'x:99999'", "ollama-proxy.toml: 'x:99999' has no valid port"),
    ],
)
def test_a_file_that_is_wrong_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ollama-proxy.toml").write_text(text, "latin-1")

    with pytest.raises(UnhealthyError) as caught:
        asked_of({})
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("host", "told"),
    [
        (":0", "OLLAMA_HOST has port 0"),
        ("x:99999", "OLLAMA_HOST: 'x:99999' has no valid port"),
        ("a\0b:80", "OLLAMA_HOST: 'a\\x00b:80' has no valid host"),
        ("\u2024\u2024.example:80", "OLLAMA_HOST: '\u2024\u2024.example:80' has no"),
        ("." + "x" * 70 + ":80", "nothing serves at"),
    ],
)
def test_an_address_that_can_not_be_asked_is_told(host: str, told: str) -> None:
    with pytest.raises(UnhealthyError) as caught:
        asked_of({"OLLAMA_HOST": host})
    assert str(caught.value).startswith(told)


def test_a_missing_file_is_told_and_not_a_traceback() -> None:
    done = run_cli("healthcheck", "--config", "/nowhere.toml")

    assert done.returncode == 1
    assert done.stderr.startswith("ollama-proxy: /nowhere.toml: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_other_ways_to_write_it_are_the_same_command() -> None:
    help_text = run_cli("healthcheck", "--help")
    wrong = run_cli("healthcheck", "--conf")
    done = run_cli("healthcheck", "--config=/nowhere.toml")

    assert "Ask the proxy that listens on this machine" in help_text.stdout
    assert wrong.returncode == 2
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_it_loads_next_to_nothing() -> None:
    """So that it costs 20 ms of processor time; the whole command costs 500."""
    code = (
        "import sys; sys.argv[1:] = ['healthcheck']\n"
        "from ollama_proxy.__main__ import main\n"
        "try: main()\n"
        "finally: print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean_environment(OLLAMA_HOST=address_of_nobody()),
        capture_output=True,
        text=True,
        check=False,
    )
    loaded = set(done.stdout.split())

    assert "ollama_proxy.cli.healthcheck" in loaded
    heavy = {"typing", "pydantic", "typer", "aiohttp", "ssl", "email", "asyncio"}
    assert not loaded & (heavy | {"http.client", "tomllib", "dataclasses", "inspect"})


@pytest.mark.skipif(os.name != "posix", reason="needs the processor time of a child")
def test_it_costs_little_processor_time() -> None:
    before = os.times()
    for _ in range(5):
        run_process("healthcheck", OLLAMA_HOST=address_of_nobody())
    after = os.times()
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system

    assert spent / 5 < 0.2  # 17 ms on a quiet machine; 500 if all were loaded


@contextlib.contextmanager
def state_folder_of(folder: Path, port: int) -> Iterator[Path]:
    """Have a state folder whose proxy, this process, listens on a port."""
    with (
        contextlib.closing(SqliteStore(folder)),
        written_down(folder, f"http://127.0.0.1:{port}"),
    ):
        yield folder


def test_it_finds_the_proxy_of_its_state_folder_on_whatever_port(
    tmp_path: Path,
) -> None:
    launch = Launch(options=("--port", "0"))
    with launched_proxy(tmp_path / "s", launch, {"OLLAMA_HOST": ":1"}) as proxy:
        env = {"OLLAMA_PROXY_STATE_DIR": f"'{tmp_path / 's'}'"}
        done = run_cli("healthcheck", **env)
        elsewhere = run_cli("healthcheck", **env, OLLAMA_HOST=address_of_nobody())
        anywhere = run_cli("healthcheck", **env, OLLAMA_HOST=":0")

    for one in (done, elsewhere, anywhere):
        assert (one.returncode, one.stderr) == (0, "")
        assert one.stdout == f"{proxy.url} serves\n"


def test_the_settings_file_names_the_state_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        answering(saying(HEALTHY)) as (port, asked),
        state_folder_of(tmp_path / "s", port),
    ):
        (tmp_path / "ollama-proxy.toml").write_text("state_dir = '~/s'")
        found = asked_of({"HOME": str(tmp_path)})

    assert (found, len(asked)) == (f"http://127.0.0.1:{port}", 1)


def test_the_default_state_folder_is_that_of_serve(tmp_path: Path) -> None:
    with (
        answering(saying(HEALTHY)) as (port, _),
        state_folder_of(tmp_path / "ollama-proxy", port),
    ):
        found = asked_of({"XDG_STATE_HOME": str(tmp_path)})

    assert found == f"http://127.0.0.1:{port}"


def test_what_is_given_and_serves_is_asked_alone(tmp_path: Path) -> None:
    with (
        answering(saying(HEALTHY)) as (port, asked),
        answering(saying(HEALTHY)) as (other, others),
        state_folder_of(tmp_path, other),
    ):
        env = {"OLLAMA_PROXY_STATE_DIR": str(tmp_path)}
        asked_of(env | {"OLLAMA_HOST": f":{port}"})

    assert (len(asked), len(others)) == (1, 0)


def test_the_folder_of_a_killed_proxy_helps_nobody(tmp_path: Path) -> None:
    port = held_port()
    env = {"OLLAMA_PROXY_STATE_DIR": str(tmp_path), "OLLAMA_HOST": f":{port}"}
    with (
        answering(saying(HEALTHY)) as (other, asked),
        written_down(tmp_path, f"http://127.0.0.1:{other}"),
        pytest.raises(UnhealthyError, match=f"nothing serves at .*:{port} "),
    ):
        asked_of(env)

    assert asked == []
