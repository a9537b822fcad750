"""Clients on TLS: served by both servers, with bounds on those that do not finish."""

import asyncio
import contextlib
import resource
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from ollama_proxy.base.tls_listener import YOUNG_S, TlsListener
from ollama_proxy.core.http.chunks import framed
from ollama_proxy.server.tls.watch import ServerCertificate
from tests.certificates import WALL, PrivateCa, private_ca
from tests.fakes.raw_upstream import patient_upstream, reply
from tests.proxy import RunningProxy, relaying_proxy, running_proxy

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
TOKEN = b'{"model":"tiny","response":"hi","done":false}\n'
END = b'{"model":"tiny","response":"","done":true}\n'
BODY = b'{"model":"tiny"}'
ASK = (
    b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
    % (len(BODY), BODY)
)
VERSION = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
HOST = "localhost"
BEHIND = {"Origin": "http://localhost"}
"""Has aiohttp's server serve what the fast path would."""


@pytest.fixture
def ca(tmp_path: Path) -> PrivateCa:
    return private_ca(tmp_path / "tls")


async def streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(len(BODY))
    writer.write(HEAD)
    for _ in range(3):
        writer.write(framed(TOKEN))
        await writer.drain()
        await asyncio.sleep(0.005)
    writer.write(framed(END) + b"0\r\n\r\n")


async def breaks_off(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.readexactly(len(BODY))
    writer.write(HEAD + framed(TOKEN))
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()


async def whole_breaks_off(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.readexactly(len(BODY))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + TOKEN)
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()


async def connected(
    proxy: RunningProxy, ca: PrivateCa
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port, ssl=ca.trusting())


@pytest.mark.parametrize("headers", [{}, BEHIND], ids=["fast", "aiohttp"])
async def test_a_stream_passes_byte_by_byte(
    tmp_path: Path, ca: PrivateCa, headers: dict[str, str]
) -> None:
    async with relaying_proxy(tmp_path, streams, tls=ca) as (_, proxy):
        for _ in range(3):
            url = f"{proxy.url}/api/generate"
            async with proxy.session.post(url, data=BODY, headers=headers) as answer:
                assert await answer.read() == TOKEN * 3 + END


async def test_a_connection_is_handed_over_within_tls(
    tmp_path: Path, ca: PrivateCa
) -> None:
    async with relaying_proxy(tmp_path, streams, tls=ca) as (_, proxy):
        reader, writer = await connected(proxy, ca)
        writer.write(ASK[:5])
        await proxy.until(lambda: proxy.behind > 0)
        writer.write(ASK[5:])
        assert (await reader.readuntil(b"0\r\n\r\n")).count(TOKEN) == 3
        writer.close()


async def test_the_protocol_is_http_1_1_on_tls_1_2_or_later(
    tmp_path: Path, ca: PrivateCa
) -> None:
    async with running_proxy(tmp_path, tls=ca) as proxy:
        seen = []
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            trusting = ca.trusting()
            trusting.minimum_version = trusting.maximum_version = version
            trusting.set_alpn_protocols(["h2", "http/1.1"])
            _, writer = await asyncio.open_connection(
                "127.0.0.1", proxy.port, ssl=trusting
            )
            told = writer.get_extra_info("ssl_object")
            seen.append((told.version(), told.selected_alpn_protocol()))
            writer.close()
        assert seen == [("TLSv1.2", "http/1.1"), ("TLSv1.3", "http/1.1")]

        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(ca.authority)
        old.set_ciphers("DEFAULT@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", proxy.port, ssl=old)


@pytest.mark.parametrize("script", [breaks_off, whole_breaks_off])
@pytest.mark.parametrize("headers", [{}, BEHIND], ids=["fast", "aiohttp"])
async def test_a_broken_answer_is_seen_as_broken(
    tmp_path: Path, ca: PrivateCa, script: object, headers: dict[str, str]
) -> None:
    async with relaying_proxy(tmp_path, script, tls=ca) as (_, proxy):  # type: ignore[arg-type]
        url = f"{proxy.url}/api/generate"
        if script is breaks_off:
            async with proxy.session.post(url, data=BODY, headers=headers) as answer:
                body = await answer.read()
            assert b'"error":' in body
        else:
            with pytest.raises(aiohttp.ClientError):
                async with proxy.session.post(url, data=BODY, headers=headers) as got:
                    await got.read()


async def test_a_reset_sends_neither_close_notify_nor_fin(
    tmp_path: Path, ca: PrivateCa
) -> None:
    """So a client without a length to check can't take the rest for the whole."""
    async with relaying_proxy(tmp_path, whole_breaks_off, tls=ca) as (_, proxy):
        loop = asyncio.get_running_loop()

        def ask() -> None:
            inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = ca.trusting().wrap_bio(inward, outward, server_hostname=HOST)
            with socket.create_connection(("127.0.0.1", proxy.port), 20) as raw:
                for act in (client.do_handshake, lambda: client.write(ASK)):
                    while not _has_done(act):
                        raw.sendall(outward.read())
                        inward.write(raw.recv(1 << 16))
                raw.sendall(outward.read())
                while part := raw.recv(1 << 16):
                    inward.write(part)
                    with contextlib.suppress(ssl.SSLWantReadError):
                        assert client.read(1 << 16)  # b"" were a close_notify
                pytest.fail("it ended with FIN")

        with pytest.raises(ConnectionResetError):
            await loop.run_in_executor(None, ask)


def _has_done(act: Callable[[], object]) -> bool:
    try:
        act()
    except ssl.SSLWantReadError:
        return False
    return True


@pytest.mark.parametrize("late", [False, True])
async def test_a_client_that_leaves_ends_its_request(
    tmp_path: Path, ca: PrivateCa, *, late: bool
) -> None:
    left = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(BODY))
        if late:
            writer.write(HEAD + framed(TOKEN))
        if await reader.read() == b"":
            left.set()

    async with relaying_proxy(tmp_path, waits, tls=ca) as (there, proxy):
        reader, writer = await connected(proxy, ca)
        writer.write(ASK)
        await proxy.until(lambda: bool(there.heads))
        if late:
            await reader.readuntil(b"hi")
        writer.close()
        async with asyncio.timeout(20.0):
            await left.wait()


async def test_a_slow_client_gets_all_of_a_large_answer(
    tmp_path: Path, ca: PrivateCa
) -> None:
    line = b'{"response":"' + b"x" * 60_000 + b'"}\n'

    async def much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(BODY))
        writer.write(HEAD)
        for _ in range(100):
            writer.write(framed(line))
            await writer.drain()
        writer.write(framed(END) + b"0\r\n\r\n")

    async with relaying_proxy(tmp_path, much, tls=ca) as (_, proxy):
        for headers in ({}, BEHIND):
            url = f"{proxy.url}/api/generate"
            async with proxy.session.post(url, data=BODY, headers=headers) as answer:
                await asyncio.sleep(0.3)
                assert await answer.read() == line * 100 + END


async def test_requests_in_one_piece_are_answered_in_order(
    tmp_path: Path, ca: PrivateCa
) -> None:
    async with running_proxy(tmp_path, tls=ca) as proxy:
        reader, writer = await connected(proxy, ca)
        writer.write(VERSION * 3)
        for _ in range(3):
            await reader.readuntil(b'"}')
        writer.close()


async def test_who_speaks_http_gets_words(tmp_path: Path, ca: PrivateCa) -> None:
    async with running_proxy(tmp_path, tls=ca) as proxy:
        for sent in (VERSION, ASK + b"x" * 20_000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            answer = await proxy.raw(sent)
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"https://" in answer


@pytest.mark.parametrize(
    "sent",
    [b"\x80\x2e\x01" * 9, b"\x16\x03\x01\xff\xff" + b"x" * 99, b"\x00", b"\xff" * 9],
    ids=["SSL 2", "record too long", "zero", "ones"],
)
async def test_garbage_ends_its_own_connection_only(
    tmp_path: Path, ca: PrivateCa, sent: bytes
) -> None:
    async with running_proxy(tmp_path, tls=ca) as proxy:
        with contextlib.suppress(ConnectionError):
            await proxy.raw(sent)
        async with proxy.session.get(f"{proxy.url}/api/version") as answer:
            assert answer.status == 200


async def test_a_client_that_does_not_trust_it_leaves_no_trace(
    tmp_path: Path, ca: PrivateCa
) -> None:
    async with running_proxy(tmp_path, tls=ca) as proxy:
        for _ in range(5):
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection(
                    "127.0.0.1", proxy.port, ssl=ssl.create_default_context()
                )
        async with proxy.session.get(f"{proxy.url}/api/version") as answer:
            assert answer.status == 200


@contextlib.asynccontextmanager
async def listening(
    ca: PrivateCa, *, most: int, handshake_s: float, young_s: float = YOUNG_S
) -> AsyncIterator[tuple[TlsListener, int]]:
    """Listen with a server that says "hi" after the handshake."""

    class Greeter(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.write(b"hi")  # type: ignore[attr-defined]

    bound = socket.create_server(("127.0.0.1", 0))
    listener = TlsListener(
        bound,
        ServerCertificate(ca.files, WALL).context,
        Greeter,
        most=most,
        handshake_s=handshake_s,
        young_s=young_s,
    )
    listener.start(128)
    try:
        yield listener, bound.getsockname()[1]
    finally:
        await listener.aclose()
        await asyncio.sleep(0.01)


async def greeted(port: int, ca: PrivateCa) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ca.trusting())
    try:
        return await reader.readexactly(2)
    finally:
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"], ids=["silent", "begun"])
async def test_a_handshake_that_does_not_end_is_given_up(
    ca: PrivateCa, sent: bytes
) -> None:
    async with listening(ca, most=9, handshake_s=0.3) as (listener, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20.0):
                assert await reader.read() == b""
        async with asyncio.timeout(20.0):
            while listener.handshakes:
                await asyncio.sleep(0.01)
        writer.close()


async def test_clients_that_never_finish_do_not_keep_others_out(ca: PrivateCa) -> None:
    async with listening(ca, most=3, handshake_s=600.0, young_s=0.2) as (
        listener,
        port,
    ):
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(9)]
        async with asyncio.timeout(60.0):
            assert await greeted(port, ca) == b"hi"
        assert listener.handshakes <= 3
        for _, writer in slow:
            writer.close()


async def test_the_certificate_of_the_moment_is_shown(ca: PrivateCa) -> None:
    """A renewal changes neither the listener nor the connections that are there."""
    bound = socket.create_server(("127.0.0.1", 0))
    certificate = ServerCertificate(ca.files, WALL)
    listener = TlsListener(bound, certificate.context, asyncio.Protocol)
    listener.start(128)
    port, seen = bound.getsockname()[1], []
    ends = []
    for number in (1, 2):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ca.trusting())
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        seen.append(ssl.DER_cert_to_PEM_cert(shown))
        ends.append(writer)
        ca.renew(number)
        await certificate.look()
    for writer in ends:
        writer.close()
    await listener.aclose()
    await asyncio.sleep(0.01)

    assert seen[0] != seen[1]


async def test_a_thousand_clients_at_once_are_served(
    tmp_path: Path, ca: PrivateCa
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4000:
        pytest.skip("too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4000), hard))
    async with patient_upstream() as there, running_proxy(tmp_path, tls=ca) as proxy:
        del there
        trusting = ca.trusting()

        async def ask() -> bytes:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", proxy.port, ssl=trusting
            )
            writer.write(VERSION)
            came = await reader.readuntil(b'"}')
            await barrier.wait()
            writer.close()
            return came

        barrier = asyncio.Barrier(1000)
        async with asyncio.timeout(100.0):
            came = await asyncio.gather(*(ask() for _ in range(1000)))
    assert all(answer.startswith(b"HTTP/1.1 200 OK") for answer in came)


async def test_at_the_end_an_idle_client_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, ca: PrivateCa
) -> None:
    async with running_proxy(tmp_path, tls=ca, drain_timeout_s=60.0) as proxy:
        loop = asyncio.get_running_loop()

        def idle_client() -> ssl.SSLSocket:
            raw = socket.create_connection(("127.0.0.1", proxy.port), 20)
            client = ca.trusting().wrap_socket(raw, server_hostname="localhost")
            client.sendall(VERSION)
            client.recv(1 << 16)
            return client

        client = await loop.run_in_executor(None, idle_client)
        await asyncio.sleep(2.1)  # the answer is certainly sent
        begun_at = loop.time()
        await proxy.runner.cleanup()
        took_s = loop.time() - begun_at
        client.close()

    assert took_s < 20.0


async def test_a_busy_reply_of_the_upstream_comes_whole(
    tmp_path: Path, ca: PrivateCa
) -> None:
    whole = b"x" * 3_000_000

    async def large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(BODY))
        writer.write(reply(whole))

    async with relaying_proxy(tmp_path, large, tls=ca) as (_, proxy):
        url = f"{proxy.url}/api/generate"
        async with proxy.session.post(url, data=BODY) as answer:
            assert await answer.read() == whole
