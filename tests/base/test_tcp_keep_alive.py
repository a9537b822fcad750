"""TCP keep-alive on every connection that may be silent, with the times that Go has."""

import asyncio
import contextlib
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ollama_proxy.base.tcp_keep_alive import keep_alive
from tests.proxy import relaying_proxy, running_proxy

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="looks at its own connections in /proc"
)

ASK = b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
AS_GO_HAS_IT = {"on": 1, "idle_s": 15, "interval_s": 15, "probes": 9}


def times_of(one: socket.socket) -> dict[str, int]:
    """Return what the system has for a socket."""
    return {
        "on": one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "idle_s": one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        "interval_s": one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        "probes": one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    }


def connections(wanted: Callable[[socket.socket], bool]) -> list[dict[str, int]]:
    """Return the times of this process's TCP connections that are ``wanted``."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, no files
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.getpeername() and wanted(one):
                    found.append(times_of(one))
    return found


def accepted_at(port: int) -> list[dict[str, int]]:
    return connections(lambda one: one.getsockname()[1] == port)


def opened_to(port: int) -> list[dict[str, int]]:
    return connections(lambda one: one.getpeername()[1] == port)


@pytest.mark.parametrize("behind", [False, True])
async def test_a_clients_connection_is_probed_by_either_server(
    tmp_path: Path, *, behind: bool
) -> None:
    async with running_proxy(tmp_path) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"POST /api/embed HT")
        await proxy.until(lambda: len(accepted_at(proxy.port)) == 1)
        if behind:
            await proxy.until(lambda: proxy.behind == 1)

        assert accepted_at(proxy.port) == [AS_GO_HAS_IT]
        writer.close()


class Silent:
    """An instance that is asked, and says nothing yet."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: Any) -> None:
        await reader.readexactly(2)
        self.asked.set()
        await self.may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def test_the_instances_connection_is_probed_while_it_is_silent(
    tmp_path: Path,
) -> None:
    silent = Silent()
    async with relaying_proxy(tmp_path, silent) as (upstream, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(ASK)
        await silent.asked.wait()

        found = opened_to(urlsplit(upstream.url).port or 0)
        assert found
        assert all(one == AS_GO_HAS_IT for one in found)
        silent.may_answer.set()
        await reader.readuntil(b"{}")
        writer.close()


async def test_so_is_that_of_the_proxys_own_questions(tmp_path: Path) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def serve(_reader: asyncio.StreamReader, writer: Any) -> None:
        asked.set()
        await may_answer.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, running_proxy(tmp_path) as proxy:
        asking = asyncio.ensure_future(
            proxy.parts.probing.get(f"http://127.0.0.1:{port}/")
        )
        await asked.wait()

        assert opened_to(port) == [AS_GO_HAS_IT]
        may_answer.set()
        await asyncio.wait([asking])
        assert asking.exception() is not None


def test_a_connection_that_has_ended_already_stays_as_it_is() -> None:
    class Ended:
        def setsockopt(self, *_: int) -> None:
            raise OSError(22, "Invalid argument")

    keep_alive(Ended())
    keep_alive(None)
