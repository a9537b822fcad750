"""The socket in the state folder, and the command that speaks to it."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import structlog

from ollama_proxy.base.errors import ProxyError, SpecError, StartupError
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.cli import control_client
from ollama_proxy.cli.control_client import ask_running
from ollama_proxy.fleet.redeployment import Redeployment, Tell
from ollama_proxy.server import control_socket
from ollama_proxy.server.control_socket import SOCKET_NAME, ControlOrder, listening

ORDER = b'{"order": "deploy", "backend": "ovh", "image": "a:1"}\n'


class Orders(Redeployment):
    """Takes orders, and fails as the test sets."""

    backend_name = "ovh"

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.images: list[str | None] = []
        self.long = "first"
        self.was_begun = False
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def run(
        self, image: str | None, tell: Tell, replaced: Collection[str] = ()
    ) -> None:
        self.was_begun = True
        await tell(self.long)
        await self.goes_on.wait()
        await tell("second")
        if self.fault is not None:
            raise self.fault
        self.images.append(image)


@asynccontextmanager
async def taking(
    folder: Path, fault: Exception | None = None, timing: Timing = STANDARD
) -> AsyncIterator[Orders]:
    orders = Orders(fault)
    async with listening(folder, orders, timing=timing):
        yield orders


async def asked(
    folder: Path,
    image: str | None = "a:1",
    backend: str = "ovh",
    timing: Timing = STANDARD,
) -> list[str] | None:
    def ask() -> list[str] | None:
        steps = ask_running(folder, order_of(image, backend), timing=timing)
        return None if steps is None else list(steps)

    async with asyncio.timeout(60):
        return await asyncio.to_thread(ask)


def order_of(image: str | None, backend: str = "ovh") -> ControlOrder:
    return ControlOrder("delete" if image is None else "deploy", backend, image)


async def raw(folder: Path, sent: bytes) -> list[dict[str, object]]:
    """Send bytes; return the lines that come back until it is hung up."""
    reader, writer = await asyncio.open_unix_connection(folder / SOCKET_NAME)
    writer.write(sent)
    async with asyncio.timeout(60):
        said = await reader.read()
    writer.close()
    return [json.loads(line) for line in said.splitlines()]


@pytest.mark.parametrize("image", ["a/b:1@sha256:0 &", None])
async def test_an_order_is_carried_out_and_its_steps_are_told(
    tmp_path: Path, image: str | None
) -> None:
    async with taking(tmp_path) as orders:
        steps = await asked(tmp_path, image)

    assert steps == ["first", "second"]
    assert orders.images == [image]


async def test_an_order_is_noted_before_it_is_carried_out_and_a_refused_one_never(
    tmp_path: Path,
) -> None:
    noted: list[tuple[str, ...]] = []
    orders = Orders(SpecError("no such image"))
    async with listening(tmp_path, orders, note=lambda *order: noted.append(order)):
        with pytest.raises(ProxyError):
            await asked(tmp_path, "a:1")
        with pytest.raises(StartupError):
            await asked(tmp_path, "a:1", backend="fly")

    assert noted == [("deploy", "a:1", "ovh")]


async def test_without_a_proxy_nobody_takes_orders(tmp_path: Path) -> None:
    async with taking(tmp_path):
        pass

    assert await asked(tmp_path) is None
    assert not (tmp_path / SOCKET_NAME).exists()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (SpecError("no such image"), ProxyError),
        (StartupError("nothing to be deployed"), StartupError),
    ],
)
async def test_what_the_proxy_says_at_the_end_is_raised(
    tmp_path: Path, fault: Exception, kind: type[Exception]
) -> None:
    async with taking(tmp_path, fault):
        with pytest.raises(kind, match=str(fault)):
            await asked(tmp_path)


async def test_a_surprise_is_no_traceback_for_the_command(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with taking(tmp_path, KeyError("secret")):
            with pytest.raises(ProxyError, match=r"failed: KeyError\Z"):
                await asked(tmp_path)

    assert [line["event"] for line in logs] == ["task.crashed"]


async def test_settings_that_mean_another_backend_are_refused(tmp_path: Path) -> None:
    async with taking(tmp_path) as orders:
        with pytest.raises(StartupError, match=r"deploys for 'ovh'.*means 'local'"):
            await asked(tmp_path, None, "local")

    assert orders.images == []


async def test_the_socket_is_its_owners_alone_whatever_the_umask_is(
    tmp_path: Path,
) -> None:
    before = os.umask(0)
    try:
        async with taking(tmp_path):
            mode = (tmp_path / SOCKET_NAME).stat().st_mode
    finally:
        after = os.umask(before)

    assert stat.S_IMODE(mode) == 0o600
    assert after == 0


async def test_a_socket_that_a_killed_proxy_left_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(tmp_path / SOCKET_NAME))
    left.close()
    before = await asked(tmp_path)
    async with taking(tmp_path):
        after = await asked(tmp_path)

    assert before is None
    assert after == ["first", "second"]


async def test_a_file_of_that_name_stays_and_the_proxy_does_without(
    tmp_path: Path,
) -> None:
    (tmp_path / SOCKET_NAME).write_text("mine")
    with structlog.testing.capture_logs() as logs:
        async with taking(tmp_path):
            answer = await asked(tmp_path)

    assert answer is None
    assert (tmp_path / SOCKET_NAME).read_text() == "mine"
    assert [line["event"] for line in logs] == ["control_socket.missing"]


@pytest.mark.parametrize(("length", "takes"), [(107, True), (108, False)])
async def test_a_path_that_is_too_long_for_the_kernel_is_told(
    length: int, takes: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("s")
    folder = folder / ("f" * (length - len(f"{folder}//{SOCKET_NAME}")))
    folder.mkdir()
    with structlog.testing.capture_logs() as logs:
        async with taking(folder):
            answer = await asked(folder)

    assert (answer is not None) == takes
    assert takes or "has 108 bytes and may have 107" in logs[0]["reason"]


async def test_a_folder_without_rights_is_served_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> tuple[socket.socket, tuple[int, int]]:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(control_socket, "_bind", refuse)
    with structlog.testing.capture_logs() as logs:
        async with taking(tmp_path):
            answer = await asked(tmp_path)

    assert answer is None
    assert logs[0]["reason"].startswith("Read-only file system; `deploy` and `delete`")


@pytest.mark.parametrize(("uid", "takes"), [(0, True), (None, True), (12345, False)])
async def test_only_its_own_user_and_root_give_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int | None, takes: bool
) -> None:
    monkeypatch.setattr(control_socket, "peer", lambda _number: uid)
    async with taking(tmp_path) as orders:
        if takes:
            await asked(tmp_path)
        else:
            with pytest.raises(StartupError, match="and of root, not of 12345"):
                await asked(tmp_path)

    assert len(orders.images) == takes


async def test_the_kernel_tells_who_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    real = os.getuid()
    async with taking(tmp_path):
        if real == 0:
            assert await asked(tmp_path) is not None
        else:
            with pytest.raises(StartupError, match=f"not of {real}"):
                await asked(tmp_path)


async def test_a_stranger_who_listens_there_is_given_no_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_client, "peer", lambda _number: 54321)
    async with taking(tmp_path) as orders:
        with pytest.raises(StartupError, match="user 54321 listens in"):
            await asked(tmp_path)
        await raw(tmp_path, b"\n")  # so the one before was let in, and hung up

    assert orders.images == []


async def test_a_link_in_its_place_is_neither_followed_nor_replaced(
    tmp_path: Path,
) -> None:
    folder, elsewhere = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / SOCKET_NAME).symlink_to(elsewhere / SOCKET_NAME)
    async with taking(elsewhere) as theirs:
        with structlog.testing.capture_logs() as logs:
            async with taking(folder) as own:
                answer = await asked(folder)

    assert answer is None
    assert (theirs.images, own.images) == ([], [])
    assert (folder / SOCKET_NAME).is_symlink()
    assert [line["event"] for line in logs] == ["control_socket.missing"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"POST /delete HTTP/1.1\r\nHost: a\r\n\r\n",
        b'{"order": "format", "backend": "ovh"}\n',
        b'{"order": "delete"}\n',
        b'{"order": "delete", "backend": "ovh", "image": "a:1"}\n',
        b'{"order": "deploy", "backend": "ovh"}\n',
        b'{"order": "deploy", "backend": "ovh", "image": ""}\n',
        b"\xff\xfe\0\n",
        b"[" * 100_000 + b"\n",
        b"x" * 5_000_000,
    ],
    ids=lambda sent: repr(sent[:20]),
)
async def test_what_is_no_order_is_refused_in_a_sentence(
    tmp_path: Path, sent: bytes
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with taking(tmp_path) as orders:
            with suppress(ConnectionError):  # it is not read to its end
                (line,) = await raw(tmp_path, sent)
                assert line["refused"], line
                assert "Traceback" not in str(line)
            assert await asked(tmp_path) == ["first", "second"]

    assert orders.images == ["a:1"]
    assert logs == []


async def test_who_says_nothing_is_hung_up(tmp_path: Path) -> None:
    async with taking(tmp_path, timing=Timing(order_read_s=0.05)) as orders:
        (line,) = await raw(tmp_path, b"")

    assert "this is no order (none received)" in str(line["error"])
    assert orders.images == []


async def test_so_many_callers_at_once_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / SOCKET_NAME
    async with taking(tmp_path):
        silent = [await asyncio.open_unix_connection(path) for _ in range(8)]
        with pytest.raises(StartupError, match="of 8 callers at once"):
            await asked(tmp_path)
        for _, writer in silent:
            writer.close()


async def test_who_does_not_read_keeps_nothing_from_being_done(tmp_path: Path) -> None:
    async with taking(tmp_path, timing=Timing(order_tell_s=0.1)) as orders:
        orders.long = "x" * (1 << 22)  # no socket buffers that much
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(tmp_path / SOCKET_NAME))
        connection.sendall(ORDER)
        async with asyncio.timeout(60):
            while not orders.images:
                await asyncio.sleep(0.01)
        connection.close()

    assert orders.images == ["a:1"]


async def test_a_proxy_that_has_frozen_is_not_waited_for_without_an_end(
    tmp_path: Path,
) -> None:
    async with taking(tmp_path) as orders:
        orders.goes_on.clear()
        with pytest.raises(ProxyError, match="broke off"):
            await asked(tmp_path, timing=Timing(order_silent_s=0.1))
        orders.goes_on.set()


async def test_a_caller_hears_of_a_proxy_that_is_at_work(tmp_path: Path) -> None:
    async with taking(tmp_path, timing=Timing(order_beat_s=0.02)) as orders:
        orders.goes_on.clear()
        asking = asyncio.get_running_loop().create_task(raw(tmp_path, ORDER))
        await asyncio.sleep(0.3)
        orders.goes_on.set()
        lines = await asking

    assert {} in lines
    assert [line["step"] for line in lines if "step" in line] == ["first", "second"]
    assert lines[-1] == {"done": True}


async def test_a_proxy_that_ends_breaks_the_order_off(tmp_path: Path) -> None:
    async with taking(tmp_path) as orders:
        orders.goes_on.clear()
        asking = asyncio.get_running_loop().create_task(asked(tmp_path))
        while not orders.was_begun:
            await asyncio.sleep(0.01)
    with pytest.raises(ProxyError, match="ended in the middle of the order"):
        await asking

    assert orders.images == []
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_the_socket_of_a_later_proxy_is_left_alone(tmp_path: Path) -> None:
    async with taking(tmp_path):
        (tmp_path / SOCKET_NAME).unlink()
        later = socket.socket(socket.AF_UNIX)
        later.bind(str(tmp_path / SOCKET_NAME))
    later.close()

    assert (tmp_path / SOCKET_NAME).exists()


async def test_an_order_goes_on_when_its_command_has_left(tmp_path: Path) -> None:
    async with taking(tmp_path) as orders:
        orders.goes_on.clear()
        steps = await asyncio.to_thread(ask_running, tmp_path, order_of("a:1"))
        assert steps is not None
        assert await asyncio.to_thread(next, steps) == "first"
        steps.close()  # type: ignore[attr-defined] # it is a generator
        orders.goes_on.set()
        async with asyncio.timeout(60):
            while not orders.images:
                await asyncio.sleep(0.01)
