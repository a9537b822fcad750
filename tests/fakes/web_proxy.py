"""A proxy as companies have: it alone reaches the outside, and records its requests.

Any name leads to one server of the test. That server has a certificate of an unknown
authority, as with a proxy that opens TLS.
"""

import asyncio
import base64
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ANSWER = (
    b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s"
)
_MAX_HEAD = 65536


@dataclass(slots=True)
class WebProxy:
    """``password`` is asked of everybody, if it is set; ``body`` is any answer."""

    authority: Path
    port: int = 0
    password: str = ""
    status: int = 200
    body: bytes = b"{}"
    tunnels: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    inside_port: int = 0
    open: dict[asyncio.StreamWriter, asyncio.Event] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def kept(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        """Keep a connection until it is served, or all are closed."""
        self.open[writer] = asyncio.Event()
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                yield
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self.open.pop(writer).set()

    async def aclose(self) -> None:
        """Close every connection."""
        ended = [event.wait() for event in self.open.values()]
        for writer in [*self.open]:
            writer.close()
        await asyncio.gather(*ended)

    @property
    def url(self) -> str:
        user = f"user:{self.password}@" if self.password else ""
        return f"http://{user}127.0.0.1:{self.port}"

    async def take(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Take a connection: a tunnel, or a request in the clear."""
        async with self.kept(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split(" ", 2)
            expected = base64.b64encode(f"user:{self.password}".encode()).decode()
            if self.password and f"Basic {expected}" not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            elif method != "CONNECT":
                self.asked.append(target)
                writer.write(ANSWER % (self.status, len(self.body), self.body))
            else:
                self.tunnels.append(target)
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await self._tunnel(reader, writer)

    async def _tunnel(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        inner = await asyncio.open_connection("127.0.0.1", self.inside_port)
        await asyncio.gather(_copy(reader, inner[1]), _copy(inner[0], writer))

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer a request through a tunnel."""
        async with self.kept(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head.split(" ", 2)[1])
            writer.write(ANSWER % (self.status, len(self.body), self.body))
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_MAX_HEAD):
            writer.write(piece)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def web_proxy_running(folder: Path, *names: str) -> AsyncIterator[WebProxy]:
    """Run one, with a server inside that has a certificate for ``names``."""
    proxy = WebProxy(folder / "authority.pem")
    context = _certificate(folder, names)
    outside = await asyncio.start_server(proxy.take, "127.0.0.1", 0)
    inside = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=context)
    proxy.port = outside.sockets[0].getsockname()[1]
    proxy.inside_port = inside.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        for server in (outside, inside):
            server.close()
        await proxy.aclose()


def _certificate(folder: Path, names: tuple[str, ...]) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a company")])
    alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=36500))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "authority.pem").write_bytes(pem)
    (folder / "server.pem").write_bytes(secret + pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    return context
