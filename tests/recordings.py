"""Answers of a real Ollama, stored beside the tests that compare with them.

``python -m tests.recordings`` records them again from the ``ollama`` on the PATH, with
an empty store and without a network.
"""

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from tests.asleep_requests import asleep_requests
from tests.fakes.ollama import real_ollama
from tests.odd_bodies import ODD_BODIES
from tests.recorded import Recorded
from tests.taken_requests import taken_requests
from tests.wire import Answer, send

FOLDER = Path(__file__).parent / "answers_of_ollama"
KEPT_HEADERS = (
    "Content-Type",
    "Content-Length",
    "Location",
    "Allow",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Methods",
    "Vary",
)


def odd_requests() -> list[Recorded]:
    """Return the odd bodies as requests."""
    return [
        Recorded(f"{at} {body[:60]!r}", "POST", "/api/generate", body)
        for at, body in enumerate(ODD_BODIES)
    ]


TABLES = {
    "odd_bodies": odd_requests(),
    "asleep_requests": asleep_requests(),
    "taken_requests": taken_requests(),
}


@contextlib.asynccontextmanager
async def empty_ollama() -> AsyncIterator[int]:
    """Run a real Ollama that has no model; yield its port."""
    with tempfile.TemporaryDirectory() as home:
        before = {name: os.environ.get(name) for name in ("OLLAMA_MODELS", "HOME")}
        os.environ.update(OLLAMA_MODELS=f"{home}/models", HOME=home)
        try:
            async with real_ollama() as url:
                yield int(url.rpartition(":")[2])
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def told(answer: Answer) -> dict[str, Any]:
    """Return what is kept of an answer, as JSON has it."""
    return {
        "status": int(answer.status.split()[1]),
        "headers": {n: v for n in KEPT_HEADERS if (v := answer.header(n)) is not None},
        "body": answer.body.decode("latin-1"),
    }


async def ask_all(port: int, requests: Sequence[Recorded]) -> dict[str, Any]:
    """Return the answers of a server, by the name of the request."""
    return {
        request.name: told(
            await send(port, request.raw(close=False), method=request.method)
        )
        for request in requests
    }


def load(name: str) -> dict[str, Any]:
    """Return answers that were written before."""
    kept: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return kept


def _one_a_line(answers: dict[str, Any]) -> str:
    """Return JSON with a line for each answer, so that a change of one is seen."""
    lines = [f"{json.dumps(name)}: {json.dumps(a)}" for name, a in answers.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


async def _record() -> None:
    async with empty_ollama() as port:
        for name, requests in TABLES.items():
            answers = await ask_all(port, requests)
            (FOLDER / f"{name}.json").write_text(_one_a_line(answers))


if __name__ == "__main__":
    asyncio.run(_record())
