"""The cycle with a real ``ollama`` behind the local backend.

Needs ``ollama`` on the PATH. A model is used only if ``REAL_OLLAMA_MODEL`` names one in
its store: nothing is downloaded.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.backends.contract import BackendContract
from ollama_proxy.backends.local import LocalBackend, choose_program
from ollama_proxy.fleet.backend import Backend
from tests.black_box import ProxyProcess, proxy_process

MODEL = os.environ.get("REAL_OLLAMA_MODEL", "")
pytestmark = [
    pytest.mark.real_ollama,
    pytest.mark.skipif(
        shutil.which("ollama") is None, reason="there is no `ollama` on the PATH"
    ),
]
needs_model = pytest.mark.skipif(
    not MODEL, reason="REAL_OLLAMA_MODEL names no model of the local store"
)


class TestRealOllama(BackendContract):
    async def open_backend(self, owner_id: str) -> Backend:
        return LocalBackend(owner_id, choose_program(None, "never"))


def real_environment() -> dict[str, Any]:
    kept = {n: os.environ[n] for n in ("OLLAMA_MODELS",) if n in os.environ}
    return kept | {"OLLAMA_PROXY_SIMULATOR": "never", "OLLAMA_NO_CLOUD": "1"}


def until_ready(proxy: ProxyProcess) -> None:
    proxy.until(lambda: proxy.get("/status")["provisioning_status"] == "ready")


def test_the_catalogue_is_that_of_the_real_server(tmp_path: Path) -> None:
    with proxy_process(tmp_path / "s", **real_environment()) as proxy:
        proxy.post("/-/wake", {})
        until_ready(proxy)
        awake = _tagged(proxy)
        version = proxy.get("/api/version")
        proxy.until(lambda: proxy.get("/v1/models") is not None)
        proxy.post("/-/stop", {})
        proxy.until(lambda: proxy.get("/status")["instance_status"] == "cold")

        assert _tagged(proxy) == awake
        assert proxy.get("/api/version") == version
        assert proxy.get("/status")["simulated"] is False


@needs_model
def test_the_whole_cycle_with_the_real_server(tmp_path: Path) -> None:
    env = real_environment() | {
        "OLLAMA_PROXY_IDLE_TIMEOUT": "1s",
        "OLLAMA_MODEL": MODEL,
    }
    with proxy_process(tmp_path / "s", **env) as proxy:
        body = {"model": MODEL, "prompt": "hi", "options": {"num_predict": 5}}
        assert proxy.post("/api/generate", body)[0] == 503
        status, raw = proxy.post("/api/generate", body, Prefer="wait=60")
        assert status == 200
        assert json.loads(raw.splitlines()[-1])["done"] is True
        proxy.until(lambda: proxy.get("/status")["instance_status"] == "cold")


def test_the_command_shows_why_it_gets_nothing_without_a_key(tmp_path: Path) -> None:
    with proxy_process(tmp_path / "s", OLLAMA_PROXY_AUTH="keys") as proxy:
        done = subprocess.run(
            ["ollama", "list"],
            env={**os.environ, "OLLAMA_HOST": proxy.url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "this proxy needs a key" in done.stderr


@needs_model
def test_openai_and_native_listings_agree_asleep_and_awake(tmp_path: Path) -> None:
    with proxy_process(tmp_path / "s", **real_environment()) as proxy:
        proxy.post("/-/wake", {})
        until_ready(proxy)
        awake = [_listed(proxy), proxy.get(f"/v1/models/{MODEL}")]
        shown = proxy.post("/api/show", {"model": MODEL})
        proxy.post("/-/stop", {})
        proxy.until(lambda: proxy.get("/status")["instance_status"] == "cold")

        assert [_listed(proxy), proxy.get(f"/v1/models/{MODEL}")] == awake
        assert proxy.post("/api/show", {"model": MODEL}) == shown


def _listed(proxy: ProxyProcess) -> list[str]:
    """Return the models by name: Ollama shuffles those of the same second."""
    return _sorted(proxy.get("/v1/models")["data"])


def _tagged(proxy: ProxyProcess) -> list[str]:
    return _sorted(proxy.get("/api/tags")["models"])


def _sorted(models: list[object]) -> list[str]:
    return sorted(json.dumps(model, sort_keys=True) for model in models)
