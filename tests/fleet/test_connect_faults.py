"""Why a server can't be reached: real servers of each kind, and their errors."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.base.clock import SystemClock
from ollama_proxy.fleet.backend import Upstream
from ollama_proxy.fleet.connect_faults import (
    ConnectFault,
    first_words,
    of_answer,
    of_error,
)
from ollama_proxy.fleet.readiness import HttpProbe
from ollama_proxy.upstream.endpoint import Link
from tests.proxy import generate, running_proxy

SET = "OLLAMA_PROXY_UPSTREAM_URL"
HERE = x509.IPAddress(ip_address("127.0.0.1"))


@contextlib.asynccontextmanager
async def server(
    answer: bytes, *, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Answer every connection with the same bytes; yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(65536)
            writer.write(answer)
            await writer.drain()
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def http(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


OLLAMA = http("200 OK", b'{"version":"0.33.0"}', Content_Type="application/json")


def certificate(folder: Path, name: x509.GeneralName) -> ssl.SSLContext:
    """Return a context with a new self-signed certificate for an address or a name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.fromtimestamp(SystemClock().now(), UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def fault_at(url: str, link: Link | None = None) -> ConnectFault | None:
    async with aiohttp.ClientSession() as session:
        setting = "" if link is not None else SET
        return await HttpProbe(session).look(Upstream(url, link, setting=setting))


async def said_of(answer: bytes) -> ConnectFault:
    async with server(answer) as port:
        fault = await fault_at(f"http://127.0.0.1:{port}")
    assert fault is not None
    return fault


async def test_ollama_has_no_fault() -> None:
    async with server(OLLAMA) as port:
        assert await fault_at(f"http://127.0.0.1:{port}") is None


async def test_a_self_signed_certificate_is_named_with_the_variable_that_mends_it(
    tmp_path: Path,
) -> None:
    context = certificate(tmp_path, HERE)
    async with server(OLLAMA, context=context) as port:
        fault = await fault_at(f"https://127.0.0.1:{port}")

    assert fault is not None
    assert not fault.passes
    assert "a certificate that is not trusted: self-signed certificate" in fault.message
    assert "set SSL_CERT_FILE" in fault.message


async def test_a_certificate_for_another_name_is_named(tmp_path: Path) -> None:
    context = certificate(tmp_path, x509.DNSName("other.example"))
    trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    link = Link("token", context=trusting)
    async with server(OLLAMA, context=context) as port:
        fault = await fault_at(f"https://127.0.0.1:{port}", link)

    assert fault is not None
    assert "not valid for '127.0.0.1'" in fault.message
    assert SET not in fault.message


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (62, f"write the name that the certificate is for in {SET}"),
        (10, "renew it, or set this machine's clock"),
        (18, "set SSL_CERT_FILE"),
    ],
)
def test_each_certificate_has_its_advice(code: int, advice: str) -> None:
    class Refused(aiohttp.ClientConnectorCertificateError):
        """As aiohttp raises it, without a connection."""

        def __init__(self) -> None:
            self._certificate_error = ssl.SSLCertVerificationError(1, "no")
            self._certificate_error.verify_code = code
            self._certificate_error.verify_message = "bad"

    assert advice in of_error(Upstream("https://h", setting=SET), Refused()).message


async def test_a_plain_server_asked_over_tls_is_named() -> None:
    async with server(http("400 Bad Request")) as port:
        fault = await fault_at(f"https://127.0.0.1:{port}")

    assert fault is not None
    assert fault.message.endswith(f"does not speak TLS; write http:// in {SET}")


@pytest.mark.parametrize(
    "answer",
    [
        http("400 Bad Request", b"Client sent an HTTP request to an HTTPS server.\n"),
        http(
            "400 Bad Request",
            b"<title>400 The plain HTTP request was sent to HTTPS port</title>",
        ),
        b"\x15\x03\x01\x00\x02\x02\x16",
    ],
    ids=["go", "nginx", "an alert"],
)
async def test_a_tls_server_asked_without_is_named(answer: bytes) -> None:
    fault = await said_of(answer)

    assert not fault.passes
    assert "speaks TLS, and was asked without" in fault.message
    assert f"write https:// in {SET}" in fault.message


async def test_a_tls_server_that_hangs_up_on_plain_http_is_a_guess(
    tmp_path: Path,
) -> None:
    context = certificate(tmp_path, HERE)
    async with server(OLLAMA, context=context) as port:
        fault = await fault_at(f"http://127.0.0.1:{port}")

    assert fault is not None
    assert "closes the connection without an answer; if it speaks TLS" in fault.message


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://o.example/api/version", f"set {SET}=https://o.example"),
        ("https://o.example/x/api/version?a=s3cret", f"set {SET}=https://o.example/x"),
        ("https://u:s3cret@o.example/api/version", f"set {SET}=https://o.example"),
        ("/ollama/api/version", "/ollama"),
        ("https://sso.example/login?to=s3cret", "https://sso.example/login, a log-in"),
        ("", "without saying where to"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_tells_where_to(status: int, location: str, told: str) -> None:
    headers = {"Location": location} if location else {}
    fault = await said_of(http(f"{status} Moved", b"<html>", **headers))

    assert not fault.passes
    assert f"redirects ({status})" in fault.message
    assert told in fault.message
    assert "s3cret" not in fault.message


PAGE = b"<!doctype html><html><head><title>Router\n log in</title></head></html>"


@pytest.mark.parametrize(
    ("status", "body", "headers", "told"),
    [
        ("200 OK", PAGE, {"Content_Type": "text/html"}, "a web page (Router log in)"),
        ("200 OK", b"Ollama is running", {}, "no version (Ollama is running)"),
        ("200 OK", b'{"version":7}', {}, 'no version ({"version":7})'),
        ("200 OK", b"\xff\x00{", {}, "no version"),
        ("200 OK", b"", {}, "200 and no version"),
        ("200 OK", b"[" * 100_000, {}, "no version"),
        ("404 Not Found", b"404 page not found", {}, "with 404 and no version"),
        ("401 Unauthorized", b"no", {}, "answers 401: it wants credentials"),
        ("403 Forbidden", b"no", {}, "answers 403: it wants credentials"),
    ],
)
async def test_what_is_not_ollama_is_named(
    status: str, body: bytes, headers: Mapping[str, str], told: str
) -> None:
    fault = await said_of(http(status, body, **headers))

    assert not fault.passes
    assert told in fault.message
    assert SET in fault.message


@pytest.mark.parametrize("status", ["429 Too Many", "502 Bad Gateway", "503 Busy"])
async def test_a_gateway_whose_server_is_coming_up_is_no_alarm(status: str) -> None:
    fault = await said_of(http(status, b"<h1>not  yet</h1>"))

    assert fault.passes
    assert f"answers {status[:3]}: not yet" in fault.message


async def test_another_protocol_is_named() -> None:
    fault = await said_of(b"SSH-2.0-OpenSSH_9.2p1\r\n")

    assert "does not speak HTTP; check the port" in fault.message


async def test_a_name_that_does_not_resolve_is_named() -> None:
    fault = await fault_at("http://no-such-name.invalid:11434")

    assert fault is not None
    assert not fault.passes
    assert "the name 'no-such-name.invalid' does not resolve" in fault.message


@pytest.mark.parametrize(
    "url", ["http://a..b", "http://127.0.0.1:99999", "http://256.1.1.1"]
)
async def test_what_is_no_address_is_no_crash(url: str) -> None:
    fault = await fault_at(url)

    assert fault is not None
    assert SET in fault.message


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(), "does not answer in time"),
        (ConnectionRefusedError(111, "no"), "nothing listens there"),
        (OSError(113, "No route to host"), "EHOSTUNREACH (No route to host)"),
        (OSError(101, "Network is unreachable"), "ENETUNREACH"),
        (ConnectionResetError(), "closes the connection without an answer"),
        (aiohttp.ServerDisconnectedError(), "closes the connection"),
        (aiohttp.ClientPayloadError("the gateway answered 503"), "answered 503"),
    ],
)
def test_what_passes_while_a_server_comes_up_is_no_alarm(
    error: Exception, told: str
) -> None:
    fault = of_error(Upstream("http://h:1"), error)

    assert fault.passes
    assert told in fault.message


@pytest.mark.parametrize(
    ("link", "told"),
    [(Link("token"), "refuses the proxy's token"), (None, "it wants credentials")],
)
def test_nobody_is_told_to_change_an_address_that_the_backend_made(
    link: Link | None, told: str
) -> None:
    upstream = Upstream("https://10.0.0.1", link)
    refused = of_answer(upstream, 401, {}, b"")
    page = of_answer(upstream, 200, {}, b"<html>")
    moved = of_answer(upstream, 302, {"Location": "/login"}, b"")

    assert told in refused.message
    assert not any("; " in fault.message for fault in (refused, page, moved))


def test_first_words_are_short_and_on_one_line() -> None:
    assert first_words(b"a\r\n\x00 b\x1b[31m " + b"c" * 999) == "a b [31m " + "c" * 71
    assert first_words(b"<style>x{}</style><p>One</p>\n<p>two</p>") == "One two"


async def test_status_and_the_503_name_it_within_one_probe_and_it_heals(
    tmp_path: Path,
) -> None:
    page = http("200 OK", PAGE, Content_Type="text/html")
    async with server(page) as port:
        url = f"http://127.0.0.1:{port}"
        async with running_proxy(tmp_path, backend=StaticBackend(url)) as proxy:
            async with asyncio.timeout(20.0):
                while (status := await proxy.status())["error"] is None:
                    await asyncio.sleep(0.05)
            async with proxy.session.post(
                f"{proxy.url}/api/generate", json=generate()
            ) as reply:
                body = await reply.json()

    assert "is not Ollama" in status["error"]
    assert status["detail"] == status["error"]
    assert (status["provisioning_status"], status["stage"]) == (
        "provisioning",
        "connecting",
    )
    assert reply.status == 503
    assert "is not Ollama" in body["error"]
    assert body["error"].endswith("; it is tried again")


async def test_a_server_that_comes_up_late_is_joined_and_the_error_goes(
    tmp_path: Path,
) -> None:
    async with server(OLLAMA) as port:
        pass
    url = f"http://127.0.0.1:{port}"
    async with running_proxy(tmp_path, backend=StaticBackend(url)) as proxy:
        async with asyncio.timeout(20.0):
            while (await proxy.status())["error"] is None:
                await asyncio.sleep(0.05)
        listening = await asyncio.start_server(_ollama, "127.0.0.1", port)
        async with listening:
            await proxy.until(lambda: proxy.state == "ready")

            assert (await proxy.status())["error"] is None


async def _ollama(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    asked = await reader.readuntil(b"\r\n\r\n")
    is_list = asked.startswith(b"GET /api/tags")
    writer.write(http("200 OK", b'{"models":[]}') if is_list else OLLAMA)
    await writer.drain()
    writer.close()


async def test_check_asks_the_url(tmp_path: Path) -> None:
    async with server(OLLAMA) as good, server(http("302 F", Location="/x")) as bad:
        fine = await StaticBackend(f"http://127.0.0.1:{good}").check()
        moved = await StaticBackend(f"http://127.0.0.1:{bad}").check()

    assert [found.ok for found in (*fine, *moved)] == [True, False]
    assert "redirects (302)" in moved[0].detail
