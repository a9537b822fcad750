"""Our agent works for a hub of the former kind."""

import asyncio
from pathlib import Path

import pytest

from tests.hub_peers.former_hub import FormerHub
from tests.hub_peers.real_agents import MODEL, agent, ollama, until


@pytest.mark.parametrize("is_strict", [False, True])
@pytest.mark.parametrize("streams", [True, False])
async def test_our_agent_does_the_jobs_of_a_former_hub(
    tmp_path: Path, is_strict: bool, streams: bool
) -> None:
    job = {"model": MODEL, "prompt": "hi", "options": {"num_predict": 3}}
    with FormerHub(is_strict).serving() as hub:
        async with (
            ollama(100.0) as before,
            agent(tmp_path / "node", hub.url, "gpu-1", before.url) as node,
        ):
            await until(lambda: any(beat["models"] for beat in hub.beats))
            lines = await asyncio.to_thread(hub.execute, {**job, "stream": streams})

    beat = hub.beats[-1]
    assert beat["node_id"] == "gpu-1"
    assert beat["port"] == node.port
    assert beat["models"] == [f"{MODEL}:latest"]
    assert isinstance(beat["metadata"]["hostname"], str)
    assert 0.0 <= beat["load"]["cpu"] <= 1.0
    assert 0.0 <= beat["load"]["memory"] <= 1.0
    assert lines[-1]["done"]
    assert "".join(line["response"] for line in lines)
    assert (len(lines) > 1) is streams
