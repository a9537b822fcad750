"""An idle instance goes at its time, by the command that a user types."""

import time
from pathlib import Path

from tests.black_box import ProxyProcess, proxy_process

IDLE_S = 3.0


def is_in(proxy: ProxyProcess, *states: str) -> bool:
    return proxy.get("/status")["instance_status"] in states


def test_an_editor_that_asks_for_a_missing_model_keeps_no_instance(
    tmp_path: Path,
) -> None:
    with proxy_process(
        tmp_path / "state", OLLAMA_MODEL="tiny", OLLAMA_PROXY_IDLE_TIMEOUT=f"{IDLE_S}s"
    ) as proxy:
        proxy.post("/-/wake", {})
        proxy.until(lambda: is_in(proxy, "ready"))
        ready_at = time.perf_counter()
        asked = []
        while is_in(proxy, "ready") and time.perf_counter() - ready_at < 3 * IDLE_S:
            body = {"model": "none", "prompt": "def f("}
            asked.append(proxy.post("/api/generate", body)[0])
            unload = {"model": "tiny", "keep_alive": "0s"}
            asked.append(proxy.post("/api/generate", unload)[0])
            time.sleep(0.3)
        lasted_s = time.perf_counter() - ready_at

    assert IDLE_S - 0.5 < lasted_s < 2 * IDLE_S
    assert len(asked) > 8
