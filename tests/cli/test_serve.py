"""The process: the cycle as a newcomer sees it, and every way to end it."""

import json
import socket
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from ollama_proxy.base.clock import SystemClock
from tests.black_box import (
    ProxyProcess,
    forked_proxy,
    proxy_process,
    run_cli,
    simulators,
)
from tests.ports import address_of_nobody

HELLO = {"model": "llama3.2", "prompt": "hi"}


def until_ready(proxy: ProxyProcess) -> None:
    proxy.until(lambda: proxy.get("/status")["provisioning_status"] == "ready")


def stopped_at(proxy: ProxyProcess) -> float:
    """Return the date at which the instance was gone, by the log of the proxy."""
    lines = [
        json.loads(line)
        for line in proxy.log.read_text().splitlines()
        if line.startswith("{")
    ]
    (dated,) = (one["timestamp"] for one in lines if one.get("after") == "cold")
    return datetime.fromisoformat(dated).timestamp()


def test_the_whole_cycle_from_the_command_line(tmp_path: Path) -> None:
    with forked_proxy(
        tmp_path / "s", OLLAMA_PROXY_IDLE_TIMEOUT="1s", OLLAMA_MODEL="llama3.2"
    ) as proxy:
        status, raw = proxy.post("/api/generate", HELLO)
        assert status == 503
        assert json.loads(raw)["provisioning"] is True
        stages: list[str] = []
        fractions: list[float] = []
        while (seen := proxy.get("/status"))["provisioning_status"] == "provisioning":
            stages += [seen["stage"]] if seen["stage"] not in stages else []
            fractions.append(seen["progress"])
            assert seen["simulated"] is True
            time.sleep(0.01)
        status, raw = proxy.post("/api/generate", HELLO)
        ended = SystemClock().wall()
        assert status == 200
        assert len(raw.splitlines()) > 20
        proxy.until(lambda: not simulators(tmp_path / "s"))
        proxy.until(lambda: proxy.get("/status")["instance_status"] == "cold")
        assert 0.9 < stopped_at(proxy) - ended < 3.0
        assert stages[-3:] == ["connecting", "pulling", "loading"]
        assert fractions == sorted(fractions)
        assert proxy.get("/status")["provisioning_status"] == "idle"


def test_sigterm_stops_the_local_instance_and_exits_cleanly(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        proxy.post("/api/generate", HELLO)
        until_ready(proxy)
        assert len(simulators(tmp_path / "s")) == 1
        code = proxy.terminate()

    assert code == 0
    assert simulators(tmp_path / "s") == []
    assert "Traceback" not in proxy.log.read_text()


def test_sigterm_lets_a_stream_end(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s", OLLAMA_SIMULATOR_RATE="30") as proxy:
        proxy.post("/api/generate", HELLO)
        until_ready(proxy)
        got: list[bytes] = []
        reader = threading.Thread(
            target=lambda: got.append(proxy.post("/api/generate", HELLO)[1])
        )
        reader.start()
        proxy.until(lambda: proxy.get("/status")["in_flight"] == 1)
        code = proxy.terminate()
        reader.join(10)

    assert code == 0
    assert json.loads(got[0].splitlines()[-1])["done"] is True


def test_a_killed_proxy_leaves_no_orphan_and_starts_again(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as first:
        first.post("/api/generate", HELLO)
        until_ready(first)
        first.kill()
    with forked_proxy(tmp_path / "s") as second:
        second.until(lambda: not simulators(tmp_path / "s"))
        second.until(lambda: second.get("/status")["instance_status"] == "cold")
        status, _ = second.post("/api/generate", HELLO, Prefer="wait=20")

        assert status == 200
        assert len(simulators(tmp_path / "s")) == 1


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.2, 0.5])
def test_a_proxy_killed_while_starting_never_leaves_two(
    tmp_path: Path, delay_s: float
) -> None:
    with forked_proxy(tmp_path / "s") as first:
        first.post("/api/generate", HELLO)
        time.sleep(delay_s)
        first.kill()
    with forked_proxy(tmp_path / "s") as second:
        status, _ = second.post("/api/generate", HELLO, Prefer="wait=20")

        assert status == 200
        assert len(simulators(tmp_path / "s")) == 1


def test_an_unknown_setting_is_named_with_the_likely_one() -> None:
    done = run_cli("serve", OLLAMA_PROXY_IDLE_TIMOUT="30m", OLLAMA_PROXY_HOLD="soon")

    assert done.returncode == 2
    assert (
        "OLLAMA_PROXY_IDLE_TIMOUT: unknown setting; did you mean"
        " OLLAMA_PROXY_IDLE_TIMEOUT?" in done.stderr
    )
    assert "OLLAMA_PROXY_HOLD: 'soon' is not a duration" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_busy_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_cli(
            "serve",
            OLLAMA_HOST=f"127.0.0.1:{port}",
            OLLAMA_PROXY_STATE_DIR=str(tmp_path),
        )

    assert done.returncode == 2
    assert f"can't listen on 127.0.0.1:{port} (Address already in use)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_locked_state_folder_names_its_holder(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        done = run_cli(
            "serve",
            OLLAMA_HOST=address_of_nobody(),
            OLLAMA_PROXY_STATE_DIR=str(tmp_path / "s"),
        )
        pid = proxy.process.pid

    assert done.returncode == 2
    assert f"is in use by process {pid};" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unwritable_state_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_cli(
        "serve",
        OLLAMA_HOST=address_of_nobody(),
        OLLAMA_PROXY_STATE_DIR=str(tmp_path / "file" / "state"),
    )

    assert done.returncode == 2
    assert "can't be written (Not a directory)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_ollama_is_one_sentence(tmp_path: Path) -> None:
    done = run_cli("serve", OLLAMA_PROXY_OLLAMA_BIN="/nowhere/ollama")

    assert done.returncode == 2
    assert "there is no program '/nowhere/ollama'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_to_type_next_is_printed(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as proxy:
        host = proxy.url.removeprefix("http://")
        proxy.until(lambda: "ollama run llama3.2" in proxy.log.read_text())
        text = proxy.log.read_text()

    assert f"curl {proxy.url}/api/generate -d" in text
    assert f"OLLAMA_HOST={host} " in text
    assert " status --watch\n" in text
    assert "simulator" in text


def test_what_is_started_where_at_what_price_and_why_is_told(tmp_path: Path) -> None:
    with forked_proxy(
        tmp_path / "s",
        OLLAMA_PROXY_DEFAULT_BACKEND="local",
        EXOSCALE_API_KEY="EXOmine",
        EXOSCALE_API_SECRET="my-secret",
        OLLAMA_PROXY_STICKY_MODELS="true",
    ) as proxy:
        proxy.until(lambda: "ollama run llama3.2" in proxy.log.read_text())
        text = proxy.log.read_text()
        reason = proxy.get("/status")["backend_reason"]
        shown = run_cli("status", OLLAMA_HOST=proxy.url).stdout
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    started = next(line for line in lines if line["event"] == "proxy.started")
    unused = [line for line in lines if line["event"] == "settings.unused"]

    assert reason == (
        "OLLAMA_PROXY_DEFAULT_BACKEND makes it the default and none is named"
    )
    assert started["backend"] == "local"
    assert started["instance_type"] == "simulator"
    assert started["location"] == "this machine"
    assert started["price"] == "at no price"
    assert started["reason"] == reason
    assert (
        "Backend local: simulator (this machine), at no price; chosen because"
        f" {reason}.\n" in text
    )
    assert "not used: EXOSCALE_API_KEY, EXOSCALE_API_SECRET; to use them" in text
    assert "OLLAMA_PROXY_DEFAULT_BACKEND=local " in text
    assert len(unused) == 1
    assert [
        line["reason"] for line in lines if line["event"] == "settings.renamed"
    ] == [
        "OLLAMA_PROXY_STICKY_MODELS is called OLLAMA_PROXY_RESTORE_MODELS by now; the"
        " former name goes on working"
    ]
    assert "EXOmine" not in text
    assert "my-secret" not in text
    assert f"because {reason}" in " ".join(shown.split())


def test_it_is_told_before_a_cloud_is_asked_for_anything(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s") as first:
        first.post("/api/generate", HELLO)
        until_ready(first)
        first.kill()
    with forked_proxy(tmp_path / "s") as second:
        second.until(lambda: "instance.transition" in second.log.read_text())
        text = second.log.read_text()

    told = text.index("proxy.started"), text.index("Backend local: ")
    assert max(told) < text.index("instance.")


def test_no_prompt_and_no_key_reaches_the_log(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s", LOG_LEVEL="debug") as proxy:
        body = {"model": "llama3.2", "prompt": "my-secret-prompt"}
        headers = {"Authorization": "Bearer my-secret-key", "Prefer": "wait=20"}
        status, _ = proxy.post("/api/generate?token=my-secret-query", body, **headers)
        proxy.terminate()
        text = proxy.log.read_text()

    assert status == 200
    assert "request.relayed" in text
    assert "my-secret" not in text


def test_the_state_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    with forked_proxy(tmp_path / "s"):
        mode = (tmp_path / "s").stat().st_mode & 0o777

    assert mode == 0o700


def test_a_log_that_nobody_reads_any_more_ends_nothing(tmp_path: Path) -> None:
    with proxy_process(
        tmp_path / "s", pipe=True, OLLAMA_PROXY_IDLE_TIMEOUT="1s"
    ) as proxy:
        assert proxy.process.stdout is not None
        proxy.process.stdout.close()
        status, _ = proxy.post("/api/generate", HELLO, Prefer="wait=20")
        assert status == 200
        proxy.until(lambda: proxy.get("/status")["instance_status"] == "cold")

        assert simulators(tmp_path / "s") == []
        assert proxy.terminate() == 0
