"""What a client sees of the whole cycle, on real sockets."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ollama_proxy.serving.hold_policy import HoldPolicy
from ollama_proxy.simulator.server import Manners
from tests.config.rig import toml
from tests.fakes.instance import InProcessBackend
from tests.proxy import generate, lines, running_proxy


async def test_the_first_request_gets_503_in_one_line_and_says_provisioning(
    tmp_path: Path,
) -> None:
    async with (
        running_proxy(tmp_path) as proxy,
        proxy.session.post(f"{proxy.url}/api/generate", json=generate()) as reply,
    ):
        raw = await reply.read()

        assert reply.status == 503
        assert raw.count(b"\n") == 0
        body = json.loads(raw)
        assert body["provisioning"] is True
        assert body["status"] == "provisioning"
        assert set(body) == {
            "error",
            "provisioning",
            "status",
            "stage",
            "progress",
            "elapsed_s",
            "eta_s",
            "position",
            "retry_after",
        }
        assert body["position"] == 1
        assert 1 <= int(reply.headers["Retry-After"]) <= 60
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Ollama-Proxy"] == "provisioning"
        assert "Server" not in reply.headers


@pytest.mark.parametrize(
    ("path", "check"),
    [
        ("/v1/chat/completions", lambda b: b["error"]["code"] == "provisioning"),
        ("/v1/messages", lambda b: b["error"]["type"] == "overloaded_error"),
    ],
)
async def test_each_family_is_told_in_its_own_words(
    tmp_path: Path, path: str, check: object
) -> None:
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "tiny", "max_tokens": 1, "messages": messages}
    async with (
        running_proxy(tmp_path) as proxy,
        proxy.session.post(f"{proxy.url}{path}", json=body) as reply,
    ):
        assert reply.status == 503
        assert callable(check)
        assert check(await reply.json())


async def test_the_cycle_from_cold_to_stream_to_gone(tmp_path: Path) -> None:
    backend = InProcessBackend(Manners(rate=50))
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_IDLE_TIMEOUT="0.3s"
    ) as proxy:
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate()
        ) as first:
            assert first.status == 503
        await proxy.until(lambda: proxy.state == "ready")
        options = {"num_predict": 30}
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(options=options)
        ) as reply:
            assert reply.status == 200
            pieces = [piece async for piece in reply.content.iter_any()]
        assert proxy.state == "ready", "a stream longer than the timeout was cut"
        # A loaded machine reads several at once; the next test sees single bytes.
        assert len(pieces) > 1, "the tokens came together, when all were there"
        assert lines(b"".join(pieces))[-1]["done"] is True
        ended = asyncio.get_running_loop().time()
        await proxy.until(lambda: backend.running == 0)

        assert asyncio.get_running_loop().time() - ended >= 0.28
        await proxy.until(lambda: proxy.state == "cold")


async def test_the_first_byte_passes_while_the_upstream_works_on_the_second(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        async with proxy.session.post(
            f"{proxy.url}/api/generate",
            json=generate(),
            headers={"X-Simulator-Fault": "stall-after=1"},
        ) as reply:
            first = await asyncio.wait_for(reply.content.readany(), 2.0)

        assert lines(first)[0]["response"] == "This"


async def test_fifty_cold_requests_make_one_launch_one_load_and_fifty_answers(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend(Manners(load_s=0.1), boot_s=0.1)
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_HOLD="20s"
    ) as proxy:

        async def ask() -> int:
            async with proxy.session.post(
                f"{proxy.url}/api/generate", json=generate()
            ) as reply:
                await reply.read()
                return reply.status

        statuses = await asyncio.gather(*(ask() for _ in range(50)))

        assert statuses == [200] * 50
        assert backend.launches == 1
        assert backend.simulator.store.loads == 1


async def test_a_waiter_whose_client_left_is_forgotten(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=0.5)
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_HOLD="20s"
    ) as proxy:
        request = proxy.session.post(f"{proxy.url}/api/generate", json=generate())
        task = asyncio.ensure_future(request)
        await proxy.until(lambda: proxy.parts.pool.waiting == 1)
        task.cancel()
        await proxy.until(lambda: proxy.parts.pool.waiting == 0)
        await proxy.until(lambda: proxy.state == "ready")

        assert backend.simulator.counters.requests.get("/api/generate", 0) <= 1


@pytest.mark.parametrize("stream", [True, False])
async def test_the_upstream_is_cancelled_within_a_second_of_the_client_leaving(
    tmp_path: Path, *, stream: bool
) -> None:
    backend = InProcessBackend(Manners(rate=5))
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.wake()
        counters = backend.simulator.counters
        request = proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(stream=stream)
        )
        task = asyncio.ensure_future(request)
        await proxy.until(lambda: counters.in_flight == 1)
        await asyncio.sleep(0.3)
        if task.done():
            task.result().close()
        task.cancel()

        await proxy.until(lambda: counters.cancelled == 1, within_s=1.0)
        await proxy.until(lambda: proxy.parts.pool.in_flight == 0, within_s=1.0)


async def test_reads_are_answered_asleep_and_wake_nothing(tmp_path: Path) -> None:
    backend = InProcessBackend()
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_MODEL="tiny,other:7b"
    ) as proxy:
        tags = await _get(proxy.session, f"{proxy.url}/api/tags")
        ps = await _get(proxy.session, f"{proxy.url}/api/ps")
        models = await _get(proxy.session, f"{proxy.url}/v1/models")
        version = await _get(proxy.session, f"{proxy.url}/api/version")

        assert [m["name"] for m in tags["models"]] == ["tiny:latest", "other:7b"]
        assert all(len(m["digest"]) == 64 for m in tags["models"])
        assert ps == {"models": []}
        assert [m["id"] for m in models["data"]] == ["tiny:latest", "other:7b"]
        assert version["version"] == "0.32.15"
        assert backend.launches == 0


async def _get(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url) as reply:
        assert reply.status == 200
        body: dict[str, Any] = await reply.json()
        return body


async def test_the_catalogue_of_the_last_instance_is_served_asleep_and_after_restart(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend(models=["tiny", "big"])
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.wake()
        await proxy.until(lambda: proxy.catalogued is not None)
        awake = await _get(proxy.session, f"{proxy.url}/api/tags")
        await proxy.stop()
        asleep = await _get(proxy.session, f"{proxy.url}/api/tags")
    async with running_proxy(tmp_path) as proxy:
        restarted = await _get(proxy.session, f"{proxy.url}/api/tags")
        async with proxy.session.post(
            f"{proxy.url}/api/show", json={"model": "big"}
        ) as reply:
            shown = await reply.json()

    assert awake == asleep == restarted
    assert [m["name"] for m in asleep["models"]] == ["tiny:latest", "big:latest"]
    assert shown["model_info"]["general.basename"] == "big"


async def test_a_pulled_model_is_in_the_catalogue_afterwards(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        async with proxy.session.post(
            f"{proxy.url}/api/pull", json={"model": "new"}
        ) as reply:
            assert lines(await reply.read())[-1] == {"status": "success"}

        def listed() -> bool:
            contents = proxy.catalogued
            return contents is not None and b"new:latest" in contents.tags

        await proxy.until(listed)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_root_is_always_200(tmp_path: Path, method: str) -> None:
    async with (
        running_proxy(tmp_path) as proxy,
        proxy.session.request(method, f"{proxy.url}/") as reply,
    ):
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert reply.headers["Content-Length"] == "17"
        assert await reply.read() == (b"Ollama is running" if method == "GET" else b"")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"model": "tiny", "keep_alive": "0s"}),
        ("/api/generate", {"model": "tiny", "prompt": "", "keep_alive": 0}),
        ("/api/chat", {"model": "tiny", "messages": [], "keep_alive": 0.0}),
    ],
)
async def test_an_unload_is_answered_asleep(
    tmp_path: Path, path: str, body: dict[str, object]
) -> None:
    backend = InProcessBackend()
    async with (
        running_proxy(tmp_path, backend=backend) as proxy,
        proxy.session.post(f"{proxy.url}{path}", json=body) as reply,
    ):
        said = await reply.json()

        assert reply.status == 200
        assert (said["done"], said["done_reason"]) == (True, "unload")
        assert backend.launches == 0


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/generate", b'{"model":', "unexpected EOF"),
        ("/api/generate", b"", "missing request body"),
        ("/api/chat", b'{"messages":[]}', "model is required"),
        ("/api/generate", b'{"model":7}', "cannot unmarshal number into Go struct"),
        ("/v1/chat/completions", b"[]", "cannot unmarshal array into Go value"),
        ("/api/pull", b"{}", "invalid model name"),
        ("/v1/messages", b'{"model":"tiny"}', "max_tokens is required"),
    ],
)
async def test_a_request_that_can_never_work_wakes_nothing(
    tmp_path: Path, path: str, body: bytes, words: str
) -> None:
    backend = InProcessBackend()
    async with (
        running_proxy(tmp_path, backend=backend) as proxy,
        proxy.session.post(f"{proxy.url}{path}", data=body) as reply,
    ):
        assert reply.status == 400
        assert words in await reply.text()
        assert backend.launches == 0


async def test_unknown_paths_and_methods_are_refused_as_ollama_does(
    tmp_path: Path,
) -> None:
    async with running_proxy(tmp_path) as proxy:
        for awake in (False, True):
            if awake:
                await proxy.wake()
            async with proxy.session.get(f"{proxy.url}/nowhere") as reply:
                assert (reply.status, await reply.text()) == (404, "404 page not found")
            async with proxy.session.get(f"{proxy.url}/api/generate") as reply:
                assert reply.status == 405
                assert await reply.text() == "405 method not allowed"
                assert "POST" in reply.headers["Allow"]


async def test_prefer_wait_holds_the_request_and_is_confirmed(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend(boot_s=0.2)
    async with running_proxy(tmp_path, backend=backend) as proxy:
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers={"Prefer": "wait=0"}
        ) as reply:
            assert reply.status == 503
            assert reply.headers["Preference-Applied"] == "wait=0"
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers={"Prefer": "wait=9"}
        ) as reply:
            assert reply.status == 200
            assert reply.headers["Preference-Applied"] == "wait=9"
            assert lines(await reply.read())[-1]["done"] is True


async def test_prefer_wait_is_bounded_by_the_longest_hold(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=5.0)
    async with (
        running_proxy(tmp_path, backend=backend, OLLAMA_PROXY_MAX_HOLD="0.1s") as proxy,
        proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers={"Prefer": "wait=99"}
        ) as reply,
    ):
        assert reply.status == 503


BEATING = HoldPolicy(hold_s=0, max_hold_s=10, silent_s=0.05, beat_s=0.05)


@pytest.mark.parametrize(
    ("path", "body", "beat"),
    [
        ("/api/generate", generate(), b" "),
        (
            "/v1/chat/completions",
            {
                "model": "tiny",
                "stream": True,
                "messages": [{"role": "user", "content": "x"}],
            },
            b": starting\n\n",
        ),
        (
            "/v1/messages",
            {
                "model": "tiny",
                "stream": True,
                "max_tokens": 5,
                "messages": [{"role": "user", "content": "x"}],
            },
            b"event: ping\n",
        ),
    ],
)
async def test_a_held_stream_gets_heartbeats_and_then_the_answer(
    tmp_path: Path, path: str, body: dict[str, object], beat: bytes
) -> None:
    backend = InProcessBackend(boot_s=0.3)
    async with (
        running_proxy(tmp_path, backend=backend, hold=BEATING) as proxy,
        proxy.session.post(
            f"{proxy.url}{path}", json=body, headers={"Prefer": "wait=9"}
        ) as reply,
    ):
        raw = await reply.read()

        assert reply.status == 200
        assert raw.startswith(beat * 2 if beat == b" " else beat)
        assert b"simulator" in raw or b"message_stop" in raw


@pytest.mark.parametrize("policy", [BEATING, HoldPolicy(max_hold_s=10)])
@pytest.mark.parametrize(("streams", "told"), [(True, "no"), (False, None)])
async def test_no_proxy_before_us_is_to_gather_a_held_stream_in_its_buffers(
    tmp_path: Path, policy: HoldPolicy, *, streams: bool, told: str | None
) -> None:
    backend = InProcessBackend(boot_s=0.2)
    async with running_proxy(tmp_path, backend=backend, hold=policy) as proxy:
        async with proxy.session.post(
            f"{proxy.url}/api/generate",
            json=generate(stream=streams),
            headers={"Prefer": "wait=9"},
        ) as held:
            await held.read()
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(stream=streams)
        ) as relayed:
            await relayed.read()

        assert held.headers.get("X-Accel-Buffering") == told
        assert "X-Accel-Buffering" not in relayed.headers


async def test_a_stream_that_waits_for_a_slot_for_longer_than_its_hold_gets_heartbeats(
    tmp_path: Path,
) -> None:
    file = toml(tmp_path, '[offers.box]\nbackend = "local"\nslots = 1\n')
    backend = InProcessBackend(Manners(rate=40.0))  # an answer takes a second
    hold = HoldPolicy(max_hold_s=0.1, silent_s=0.2, beat_s=0.1)
    async with running_proxy(
        tmp_path / "state", file=file, backend=backend, hold=hold
    ) as proxy:
        await proxy.wake()
        chat = {
            "model": "tiny",
            "stream": True,
            "messages": [{"role": "user", "content": "x"}],
        }
        url = f"{proxy.url}/v1/chat/completions"
        async with proxy.session.post(url, json=chat) as first:
            asked = proxy.session.post(url, json=chat, headers={"Prefer": "wait=9"})
            async with asked as second:
                raw = await second.read()
            await first.read()

    assert raw.startswith(b": starting\n\n")
    assert raw.endswith(b"data: [DONE]\n\n")


async def test_a_failure_after_heartbeats_is_told_in_the_stream(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=9.0)
    hold = HoldPolicy(hold_s=0, max_hold_s=0.3, silent_s=0.05, beat_s=0.05)
    async with (
        running_proxy(tmp_path, backend=backend, hold=hold) as proxy,
        proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers={"Prefer": "wait=9"}
        ) as reply,
    ):
        said = lines(await reply.read())

        assert reply.status == 200
        assert "is starting" in said[-1]["error"]


async def test_an_upstream_error_after_heartbeats_is_told_in_the_stream(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend(boot_s=0.3)
    async with (
        running_proxy(tmp_path, backend=backend, hold=BEATING) as proxy,
        proxy.session.post(
            f"{proxy.url}/api/generate",
            json=generate(model="nope"),
            headers={"Prefer": "wait=9"},
        ) as reply,
    ):
        said = lines(await reply.read())

        assert said == [{"error": "model 'nope' not found"}]


async def test_too_many_waiting_requests_are_told_so_at_once(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=0.4)
    async with running_proxy(
        tmp_path,
        backend=backend,
        OLLAMA_PROXY_HOLD="9s",
        OLLAMA_PROXY_MAX_WAITING="1",
    ) as proxy:
        first = asyncio.ensure_future(
            proxy.session.post(f"{proxy.url}/api/generate", json=generate())
        )
        await proxy.until(lambda: proxy.parts.pool.waiting == 1)
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate()
        ) as reply:
            assert reply.status == 503
            assert "1 requests wait already" in (await reply.json())["error"]
        assert (await first).status == 200


async def test_a_failed_launch_is_told_with_its_cause_and_not_repeated_at_once(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend(models=[])
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_MODEL="missing-model"
    ) as proxy:
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(model="missing-model")
        ):
            pass
        await proxy.until(lambda: proxy.state == "cool-down")
        async with proxy.session.post(
            f"{proxy.url}/api/generate",
            json=generate(model="missing-model"),
            headers={"Prefer": "wait=5"},
        ) as reply:
            body = await reply.json()

        assert reply.status == 503
        assert reply.headers["X-Ollama-Proxy"] == "error"
        assert (body["status"], body["provisioning"]) == ("error", False)
        assert "could not be pulled" in body["error"]
        assert backend.launches == 1
        assert (await proxy.status())["provisioning_status"] == "error"


async def test_an_instance_that_vanishes_is_noticed_and_replaced(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend()
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_BACKOFF="0"
    ) as proxy:
        await proxy.wake()
        await backend.preempt()
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers={"Prefer": "wait=9"}
        ) as reply:
            assert reply.status in {200, 503}
        await proxy.until(lambda: proxy.state in {"cold", "starting", "ready"})
        async with proxy.session.post(
            f"{proxy.url}/api/generate", json=generate(), headers={"Prefer": "wait=9"}
        ) as reply:
            assert reply.status == 200
        assert backend.launches == 2


async def test_a_body_too_large_to_keep_is_not_held(tmp_path: Path) -> None:
    backend = InProcessBackend(boot_s=0.2)
    async with running_proxy(
        tmp_path, backend=backend, OLLAMA_PROXY_HOLD="9s"
    ) as proxy:
        async with proxy.session.post(
            f"{proxy.url}/api/blobs/sha256:{'0' * 64}", data=io.BytesIO(bytes(33 << 20))
        ) as reply:
            assert reply.status == 503
        assert proxy.parts.pool.waiting == 0


async def test_status_keeps_the_keys_of_its_forerunners(tmp_path: Path) -> None:
    async with running_proxy(tmp_path, OLLAMA_MODEL="tiny") as proxy:
        status = await proxy.status()

        assert status["service"] == "ollama-proxy"
        assert status["provisioning_status"] == "idle"
        assert status["instance_status"] == "cold"
        assert status["ollama_model"] == "tiny"
        assert status["idle_timeout"] == 1800.0
        for key in ("remote_url", "zone", "instance_type", "error"):
            assert key in status


async def test_a_read_of_an_instance_that_is_up_is_no_use_of_it(tmp_path: Path) -> None:
    async with running_proxy(tmp_path) as proxy:
        await proxy.wake()
        before = proxy.parts.pool.controllers[0].record.last_used
        await _get(proxy.session, f"{proxy.url}/api/tags")
        await _get(proxy.session, f"{proxy.url}/api/ps")

        assert proxy.parts.pool.controllers[0].record.last_used == before


async def test_a_read_whose_instance_is_lost_is_not_left_hanging(
    tmp_path: Path,
) -> None:
    backend = InProcessBackend()
    async with running_proxy(tmp_path, backend=backend) as proxy:
        await proxy.wake()
        stalled = {"X-Simulator-Fault": "delay=30"}
        asking = asyncio.ensure_future(
            proxy.session.post(
                f"{proxy.url}/api/show", json={"model": "tiny"}, headers=stalled
            )
        )
        counters = backend.simulator.counters
        await proxy.until(lambda: counters.requests.get("/api/show", 0) > 1)
        proxy.parts.pool.stop()
        answer = await asyncio.wait_for(asking, 3.0)
        answer.close()

    assert answer.headers["X-Ollama-Proxy"] == "asleep"
