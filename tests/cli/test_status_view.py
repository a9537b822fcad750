"""What a status looks like on a line and at a terminal."""

import io
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from ollama_proxy.cli.status_view import (
    as_line,
    is_read,
    pull_line,
    render_status,
    status_line,
)
from tests.proxy import running_proxy

EVIL = "\x1b]0;owned\x07\x1b[2Jmodel\u202e\x9b31m"


async def a_status(tmp_path: Path, **changed: Any) -> dict[str, Any]:
    async with running_proxy(tmp_path) as proxy:
        return await proxy.status() | changed


async def test_a_line_changes_with_what_goes_on_and_not_with_the_time(
    tmp_path: Path,
) -> None:
    status = await a_status(
        tmp_path, stage="pulling", detail="llama3.2", progress=0.41, elapsed_s=3.0
    )
    line = status_line(status)

    assert line.endswith("  pulling llama3.2, 40 %  0 in flight, 0 waiting")
    assert status_line(status | {"elapsed_s": 9.0, "progress": 0.45}) == line
    assert status_line(status | {"progress": 0.5}) != line
    assert status_line(status | {"waiting": 1}) != line
    assert status_line(status | {"error": "no key"}).endswith("  error: no key")


async def test_no_text_of_others_gives_orders_to_a_terminal(tmp_path: Path) -> None:
    status = await a_status(
        tmp_path,
        stage="pulling",
        detail=EVIL,
        elapsed_s=1.0,
        progress=0.1,
        error=EVIL,
        backend_reason=EVIL,
        zone=EVIL,
    )
    shown = io.StringIO()
    Console(file=shown, width=200).print(render_status(status, "http://x:1"))
    pull = {"model": EVIL, "status": EVIL, "progress": None}
    texts = [shown.getvalue(), status_line(status), pull_line(pull), as_line(status)]

    assert not any(
        control in text for text in texts for control in "\x1b\x07\x9b\u202e"
    )


async def test_several_pools_have_no_state_but_those_of_each(tmp_path: Path) -> None:
    shown = io.StringIO()
    status = await a_status(tmp_path, progress=0.5)
    (pool,) = status["pools"]
    first = {**pool, "name": "first"}
    second = {**pool, "name": "second", "ready": 1, "in_flight": 3}
    several = status | {"pools": [first, second], "error": "no disk"}
    Console(file=shown, width=200).print(render_status(several, "http://x:1"))
    rows = [" ".join(row.split()) for row in shown.getvalue().splitlines()]

    assert [
        row.partition(":")[0] for row in rows if not row.startswith("default/")
    ] == [
        "proxy http",
        "pool first (*)",
        "pool second (*)",
        "error no disk",
    ]
    assert "second (*): 1 ready, 0 wanted, 3 in flight" in rows[3]


async def test_the_screen_names_the_proxy_that_was_asked(tmp_path: Path) -> None:
    shown = io.StringIO()
    status = await a_status(tmp_path)
    Console(file=shown, width=200).print(render_status(status, "http://[::1]:80"))

    assert shown.getvalue().splitlines()[0].split() == ["proxy", "http://[::1]:80"]


def test_a_pipe_without_a_reader_is_noticed_at_once() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as out:
        assert is_read(out, 0.01)
        os.close(reading)
        begun = time.perf_counter()
        assert not is_read(out, 30)
        assert time.perf_counter() - begun < 5


def test_what_is_no_descriptor_is_taken_for_read() -> None:
    assert is_read(io.StringIO(), 0.01)
