"""No secret in any log, status, exception or process list."""

import asyncio
import io
from pathlib import Path

import psutil
import pytest

from ollama_proxy.base import log
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.upstream.certificates import Authority
from tests.backends.exoscale.rig import OWNER, Rig, exoscale_rig
from tests.black_box import proxy_process, run_cli
from tests.fakes.exoscale.server import KEY, SECRET
from tests.malformed_requests import MALFORMED
from tests.malformed_requests import SECRET as CLIENTS_SECRET
from tests.proxy import generate, running_proxy

WAIT = {"Prefer": "wait=20"}


def environment(rig: Rig, folder: Path) -> dict[str, str]:
    return {
        "EXOSCALE_API_KEY": KEY,
        "EXOSCALE_API_SECRET": SECRET,
        "EXOSCALE_API_ENDPOINT": rig.server.url,
        "OLLAMA_PROXY_STATE_DIR": str(folder),
        "LOG_LEVEL": "debug",
    }


async def test_a_whole_life_tells_no_secret(tmp_path: Path) -> None:
    told = io.StringIO()
    log.configure("debug", told)
    async with exoscale_rig(tmp_path) as rig:
        rig.server.script["list-instances"] = ["503"]
        rig.server.script["delete-instance"] = ["500"]
        async with running_proxy(
            tmp_path / "proxy", backend=rig.open(), OLLAMA_MODEL="tiny"
        ) as proxy:
            async with proxy.session.post(
                f"{proxy.url}/api/generate", json=generate(), headers=WAIT
            ) as answer:
                told.write(f"{answer.headers} {await answer.text()}")
            told.write(str(await proxy.status()))
            (instance,) = rig.cloud.paid
            launch_id = LaunchId(instance.labels["launch"])
            token = rig.guests.inside[instance.id].token
            proxy.parts.pool.stop()
            await proxy.until(lambda: proxy.state == "cold", within_s=10.0)
        authority = Authority(tmp_path / OWNER / "authority", rig.clock)

    assert token == authority.token(launch_id)
    assert "instance.call_failed" in told.getvalue()
    for secret in (SECRET, token, "PRIVATE KEY", instance.body["user-data"][:60]):
        assert secret not in told.getvalue()


async def test_the_process_and_its_commands_tell_no_secret(tmp_path: Path) -> None:
    async with exoscale_rig(tmp_path) as rig:
        rig.cloud.quotas = {"gpua5000": (0, 0)}
        given = environment(rig, tmp_path / "state")
        checked = await asyncio.to_thread(run_cli, "check", **given)
        rig.server.always["list-instance-types"] = "403"
        denied = await asyncio.to_thread(run_cli, "check", **given)
        swept = await asyncio.to_thread(run_cli, "sweep", "--expired", **given)

    said = [one.stdout + one.stderr for one in (checked, denied, swept)]
    assert "GPU quotas are 0" in said[0]
    assert "operation in ['list-zones'" in said[1]
    assert "nothing of ours" in said[2]
    assert not [text for text in said if SECRET in text]


async def test_the_running_proxy_tells_no_secret(tmp_path: Path) -> None:
    async with exoscale_rig(tmp_path) as rig:
        rig.cloud.timing.boot_s = 1e9
        given = environment(rig, tmp_path / "state")
        given.pop("OLLAMA_PROXY_STATE_DIR")

        def live() -> tuple[str, str]:
            with proxy_process(tmp_path / "state", pipe=False, **given) as proxy:
                asked = proxy.post("/api/generate", {"model": "tiny", "prompt": "hi"})
                command = " ".join(psutil.Process(proxy.process.pid).cmdline())
                proxy.until(lambda: rig.cloud.bought == 1)
                refused = [proxy.raw(request) for request in MALFORMED.values()]
                shown = f"{asked} {proxy.get('/status')} {command} {refused}"
                proxy.terminate()
                return shown, proxy.log.read_text()

        shown, logged = await asyncio.to_thread(live)

    assert "provisioning" in shown
    assert "exoscale" in logged
    assert SECRET not in shown + logged
    assert CLIENTS_SECRET.decode() not in logged
    assert "Traceback" not in logged


@pytest.mark.parametrize("wrong", ["EXOSCALE_DISK_SIZE", "EXOSCALE_ALLOWED_CIDR"])
async def test_a_fault_in_the_settings_tells_no_secret(
    tmp_path: Path, wrong: str
) -> None:
    given = {"EXOSCALE_API_KEY": KEY, "EXOSCALE_API_SECRET": SECRET, wrong: "x"}
    refused = await asyncio.to_thread(run_cli, "serve", **given)

    assert refused.returncode == 2
    assert wrong in refused.stderr
    assert SECRET not in refused.stderr
