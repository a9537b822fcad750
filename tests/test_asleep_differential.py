"""Asleep, we answer as a real Ollama that has no model: two hundred requests.

Its answers are recorded (`tests.recordings`), and requested again if there is an
``ollama`` on the PATH. Differences are listed here, and in docs/clients.md.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.server.machine_hosts import hosts_of_this_machine
from tests.asleep_requests import asleep_requests
from tests.fakes.instance import InProcessBackend
from tests.proxy import running_proxy
from tests.recordings import ask_all, empty_ollama, load
from tests.serving.test_wakes_for_unknown_models import be_listed, empty_disk
from tests.taken_requests import taken_requests

RECORDED = load("asleep_requests")
_REQUEST_ID = re.compile(r'"request_id":"req_[0-9a-f]{24}"')


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without what no two answers share."""
    return answer | {"body": _REQUEST_ID.sub('"request_id":""', answer["body"])}


def differences(
    real: dict[str, Any], ours: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield the name of each request whose answers differ, and how."""
    for name, answer in real.items():
        expected, got = comparable(answer), comparable(ours[name])
        if "Content-Length" not in expected["headers"]:
            got["headers"].pop("Content-Length", None)
        for part in expected:
            if expected[part] != got[part]:
                yield name, f"{part}: {expected[part]!r} became {got[part]!r}"


@pytest.mark.parametrize("headers", [{}, {"Prefer": "left to the server behind"}])
async def test_asleep_we_answer_as_an_ollama_without_a_model(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    requests = [
        replace(request, headers=request.headers | headers)
        for request in asleep_requests()
    ]
    backend = InProcessBackend(models=())
    hosts = hosts_of_this_machine()
    async with running_proxy(tmp_path, backend=backend, hosts=hosts) as proxy:
        ours = await ask_all(proxy.port, requests)
        launches = backend.launches

    found = dict(differences(RECORDED, ours))
    assert not found, "\n".join(f"{name}: {how}" for name, how in found.items())
    assert launches == 0


async def test_it_is_the_same_for_requests_that_miss_only_their_model(
    tmp_path: Path,
) -> None:
    backend, hosts = empty_disk(), hosts_of_this_machine()
    async with running_proxy(tmp_path, backend=backend, hosts=hosts) as proxy:
        await be_listed(proxy)
        ours = await ask_all(proxy.port, taken_requests())

    found = dict(differences(load("taken_requests"), ours))
    assert not found, "\n".join(f"{name}: {how}" for name, how in found.items())
    assert backend.launches == 1


def test_every_request_has_its_recorded_answer() -> None:
    assert [request.name for request in asleep_requests()] == list(RECORDED)


@pytest.mark.real_ollama
@pytest.mark.skipif(shutil.which("ollama") is None, reason="there is no `ollama`")
async def test_a_real_ollama_still_says_what_is_recorded() -> None:
    async with empty_ollama() as port:
        now = await ask_all(port, asleep_requests())

    assert dict(differences(RECORDED, now)) == {}
