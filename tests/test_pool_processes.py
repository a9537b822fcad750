"""Pools as people run them: `serve` with a settings file, local programs, real clients.

`POOL_CHAT_S=30` makes the parallel chats as long as real ones are. With an `ollama` on
the PATH, `REAL_OLLAMA_GGUF` names a small model file that it makes a model of.
"""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.black_box import Launch, ProxyProcess, launched_proxy, run_cli
from tests.config.rig import toml
from tests.pool_settings import TWO_POOLS

CHAT_S = float(os.environ.get("POOL_CHAT_S", "1"))
TOKENS = 8
GGUF = os.environ.get("REAL_OLLAMA_GGUF", "")

PARALLEL = """
[offers.here]
backend = "local"
slots = 4
[pools.main]
models = ["*"]
offers = ["here"]
max_instances = 3
max_starting = 3
idle_timeout = "2s"
keep_extra = "1s"
hold = "10m"
"""
TWO = f'hold = "60s"\n{TWO_POOLS}'


@contextmanager
def serving(folder: Path, text: str, **env: str) -> Iterator[ProxyProcess]:
    """Run a proxy with a settings file on local programs."""
    launch = Launch(options=("--config", str(toml(folder, text))))
    with launched_proxy(folder / "s", launch, env) as proxy:
        yield proxy


def instances(proxy: ProxyProcess, pool: int = 0) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = proxy.get("/status")["pools"][pool]["instances"]
    return told


def states(proxy: ProxyProcess) -> list[str]:
    return [one["state"] for pool in (0, 1) for one in instances(proxy, pool)]


def counters(url: str) -> dict[str, Any]:
    """Return what a simulator counted."""
    with urllib.request.urlopen(f"{url}/-/simulator", timeout=10) as reply:
        body: dict[str, Any] = json.load(reply)
        return body


@pytest.mark.timeout(120 + 40 * CHAT_S)
def test_forty_parallel_chats_have_three_instances_with_four_at_most_each(
    tmp_path: Path,
) -> None:
    body = {
        "model": "tiny",
        "stream": False,
        "messages": [{"role": "user", "content": "hi"}],
        "options": {"num_predict": TOKENS},
    }
    most: dict[str, int] = {}
    rate = {"OLLAMA_SIMULATOR_RATE": str(TOKENS / CHAT_S), "OLLAMA_MODEL": "tiny"}
    with (
        serving(tmp_path, PARALLEL, **rate) as proxy,
        ThreadPoolExecutor(40) as clients,
    ):
        begun = time.perf_counter()
        asking = [clients.submit(_chat, proxy, body) for _ in range(40)]
        while not all(one.done() for one in asking):
            for one in instances(proxy):
                if one["state"] == "ready":
                    most[one["url"]] = counters(one["url"])["most_working"]
            time.sleep(min(0.1, CHAT_S / 8))
        statuses = [one.result() for one in asking]
        took_s = time.perf_counter() - begun
        assert statuses == [200] * 40
        assert len(most) == 3
        assert max(most.values()) == 4
        assert took_s >= 3 * CHAT_S  # 40 chats in at least four turns of 12
        proxy.until(lambda: instances(proxy) == [], within_s=60)


def _chat(proxy: ProxyProcess, body: dict[str, Any]) -> int:
    """Ask without Python's own limit of a minute; return the status."""
    asked = urllib.request.Request(
        f"{proxy.url}/api/chat", data=json.dumps(body).encode()
    )
    with urllib.request.urlopen(asked, timeout=60 + 40 * CHAT_S) as reply:
        assert json.load(reply)["done"] is True
        return int(reply.status)


def test_two_pools_on_the_command_line(tmp_path: Path) -> None:
    with serving(tmp_path, TWO, OLLAMA_MODEL="big:1,small:1") as proxy:
        body = {"model": "small:1", "prompt": "hi", "stream": False}
        assert proxy.post("/api/generate", body)[0] == 200
        assert states(proxy) == ["cold", "ready"]
        proxy.until(lambda: '"pool":"small"' in proxy.log.read_text())
        asked = {
            "OLLAMA_HOST": proxy.url.removeprefix("http://"),
            "OLLAMA_PROXY_STATE_DIR": str(proxy.state),  # where the order token is
        }

        shown = run_cli("status", **asked).stdout
        planned = run_cli("plan", "--explain", **asked).stdout
        one_planned = run_cli("plan", "--pool", "small", **asked).stdout
        none_planned = run_cli("plan", "--pool", "huge", **asked)
        run_cli("wake", "--pool", "big", **asked)
        proxy.until(lambda: states(proxy) == ["ready", "ready"])
        run_cli("stop", "--pool", "small", **asked)
        proxy.until(lambda: states(proxy) == ["ready", "cold"])
        wrong = run_cli("wake", "--pool", "huge", **asked)
        run_cli("stop", **asked)
        proxy.until(lambda: states(proxy) == ["cold", "cold"])

    assert "big (big*): 0 ready, 0 wanted" in shown
    assert "small (*): 1 ready, 1 wanted" in shown
    assert "small/0/two ready" in shown
    assert "big: 0 wanted, 0 ready; nothing to do" in planned
    assert "assumed until measured" in planned
    assert one_planned.startswith("small: ")
    assert "big: " not in one_planned
    for refused in (wrong, none_planned):
        assert refused.returncode == 1
        assert "no pool is named 'huge'; there are big, small" in refused.stderr


@pytest.mark.real_ollama
@pytest.mark.skipif(shutil.which("ollama") is None, reason="there is no `ollama`")
@pytest.mark.skipif(not GGUF, reason="REAL_OLLAMA_GGUF names no model file")
def test_ollama_create_from_a_file_lands_in_the_pool_that_takes_files(
    tmp_path: Path,
) -> None:
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(f"FROM {GGUF}\n")
    env = {"OLLAMA_PROXY_SIMULATOR": "never", "OLLAMA_NO_CLOUD": "1"}
    env["OLLAMA_MODELS"] = str(tmp_path / "models")
    with serving(tmp_path, TWO, **env) as proxy:

        def ollama(*words: str) -> subprocess.CompletedProcess[str]:
            host = {"OLLAMA_HOST": proxy.url, "HOME": str(tmp_path)}
            return subprocess.run(
                ["ollama", *words],
                env=os.environ | env | host,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )

        made = ollama("create", "mine", "-f", str(modelfile))
        listed = ollama("list").stdout
        refused = ollama("create", "big-mine", "-f", str(modelfile))
        copied = ollama("cp", "mine", "big-copy")
        removed = ollama("rm", "mine")

        assert states(proxy)[0] == "cold"
    assert made.returncode == 0, made.stderr
    assert "mine:latest" in listed
    assert refused.returncode == copied.returncode == 1
    assert all(
        word in refused.stderr for word in ("'big'", "'small'", "uploads = true")
    )
    assert "'big-copy'" in copied.stderr
    assert removed.returncode == 0
