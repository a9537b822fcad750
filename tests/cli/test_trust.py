"""Commands on TLS: exactly the certificate of this machine's proxy is trusted."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ollama_proxy.base.errors import ProxyError
from ollama_proxy.base.serving_address import Running, running_proxy
from ollama_proxy.cli.admin_client import ProxyClient, ProxyUnreachableError
from ollama_proxy.cli.trust import trusted_by
from tests.black_box import Launch, ProxyProcess, launched_proxy, run_cli
from tests.certificates import PrivateCa, certificate, pem_key, private_ca

ANSWER = b'{"service": "ollama-proxy"}'


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


class _Server(http.server.HTTPServer):
    def handle_error(self, *_: object) -> None:
        """Stay quiet about clients that do not trust it."""


@contextmanager
def shown(ca: PrivateCa) -> Iterator[str]:
    """Run an HTTPS server with a certificate; yield its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.files.certificate, ca.files.key)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def asks(url: str, file: Path | None, running: Running | None = None) -> None:
    ProxyClient(url, 20.0, trusted=trusted_by(url, file, running)).status()


def test_the_certificate_of_the_settings_is_trusted_whatever_it_names(
    tmp_path: Path,
) -> None:
    ca = private_ca(tmp_path)
    ca.files.certificate.write_bytes(certificate(0, hosts=("elsewhere.test",)))
    with shown(ca) as url:
        asks(url, ca.files.certificate)


def test_an_expired_one_is_still_the_proxys(tmp_path: Path) -> None:
    ca = private_ca(tmp_path)
    ca.renew(0, begins_s=-9e5, ends_s=-8e5)
    with shown(ca) as url:
        asks(url, ca.files.certificate)


def test_another_one_of_the_same_authority_is_not_trusted(tmp_path: Path) -> None:
    ours, other = private_ca(tmp_path / "a"), private_ca(tmp_path / "b", 1)
    chain = ours.files.certificate.read_bytes() + ours.authority.read_bytes()
    ours.files.certificate.write_bytes(chain)
    with (
        shown(other) as url,
        pytest.raises(ProxyUnreachableError, match="is not trusted"),
    ):
        asks(url, ours.files.certificate)


def test_what_the_running_proxy_shows_is_trusted_before_the_file_is_read_again(
    tmp_path: Path,
) -> None:
    ca = private_ca(tmp_path)
    before = ca.files.certificate.read_text()
    with shown(ca) as url:
        ca.renew(1)
        asks(url, ca.files.certificate, Running(url, before))
        asks(url, None, Running(url, before))
        with pytest.raises(ProxyUnreachableError):
            asks(url, ca.files.certificate, Running("https://other:1", before))


def test_without_either_it_is_checked_as_any_server(tmp_path: Path) -> None:
    with shown(private_ca(tmp_path)) as url:
        with pytest.raises(ProxyUnreachableError, match="SSL_CERT_FILE") as caught:
            asks(url, None)
        assert "\n" not in str(caught.value)


def test_a_file_without_a_certificate_trusts_nothing(tmp_path: Path) -> None:
    with shown(private_ca(tmp_path / "tls")) as url:
        damaged = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
        for content in ("", pem_key().decode(), damaged):
            (tmp_path / "file").write_text(content)
            with pytest.raises(ProxyUnreachableError, match="is not trusted"):
                asks(url, tmp_path / "file")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[ProxyProcess, PrivateCa, Path]]:
    ca, state = private_ca(tmp_path / "tls"), tmp_path / "state"
    with launched_proxy(state, Launch(is_forked=True), ca.settings) as proxy:
        yield proxy, ca, state


def test_commands_find_a_proxy_on_tls_by_settings_and_without(
    served: tuple[ProxyProcess, PrivateCa, Path],
) -> None:
    proxy, ca, state = served
    assert proxy.url.startswith("https://")
    where = {"OLLAMA_PROXY_STATE_DIR": str(state)}
    address = {"OLLAMA_HOST": proxy.url.removeprefix("https://")}
    for env in (where, where | address, where | address | ca.settings):
        for command in ("status", "healthcheck", "wake"):
            ran = run_cli(command, **env)
            assert ran.returncode == 0, (command, env, ran.stderr)
    ran = run_cli("healthcheck", **address, **ca.settings)
    assert ran.stdout == f"{proxy.url} serves\n"


def test_a_renewal_is_known_to_commands(
    served: tuple[ProxyProcess, PrivateCa, Path],
) -> None:
    proxy, ca, state = served
    ca.renew(1)
    renewed = ca.files.certificate.read_text()

    def is_known() -> bool:
        running = running_proxy(state)
        return running is not None and running.certificate == renewed

    proxy.until(is_known)
    ran = run_cli("status", OLLAMA_PROXY_STATE_DIR=str(state))
    assert ran.returncode == 0, ran.stderr


def test_a_fault_of_renewed_files_is_in_the_status_and_the_old_one_serves(
    served: tuple[ProxyProcess, PrivateCa, Path],
) -> None:
    proxy, ca, _ = served
    assert proxy.get("/status")["tls"]["problem"] is None
    ca.files.key.write_bytes(pem_key(1))
    proxy.until(lambda: proxy.get("/status")["tls"]["problem"] is not None, 60.0)

    assert "does not fit" in proxy.get("/status")["tls"]["problem"]
    assert "certificate.unusable" in proxy.log.read_text()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("key", "does not fit the first certificate"),
        ("expired", "expired on"),
        ("missing", "can't be read (No such file"),
        ("encrypted", "is encrypted"),
    ],
)
def test_a_certificate_that_can_not_be_served_is_one_sentence_at_the_start(
    tmp_path: Path, fault: str, words: str
) -> None:
    ca = private_ca(tmp_path)
    match fault:
        case "key":
            ca.files.key.write_bytes(pem_key(1))
        case "expired":
            ca.renew(0, begins_s=-9e5, ends_s=-8e5)
        case "missing":
            ca.files.certificate.unlink()
        case "encrypted":
            ca.files.key.write_bytes(pem_key(0, b"secret"))
    env = ca.settings | {"OLLAMA_PROXY_STATE_DIR": str(tmp_path / "state")}
    served = run_cli("serve", "--host", "127.0.0.1:0", **env)
    checked = run_cli("check", **env, OLLAMA_HOST="127.0.0.1:0")

    assert served.returncode != 0
    assert words in served.stderr
    assert len(served.stderr.strip().splitlines()) == 1
    assert "wrong certificate: " in checked.stdout + checked.stderr


@pytest.mark.parametrize("name", ["OLLAMA_PROXY_TLS_CERT", "OLLAMA_PROXY_TLS_KEY"])
def test_one_setting_without_the_other_is_refused(tmp_path: Path, name: str) -> None:
    ran = run_cli("check", **{name: private_ca(tmp_path).settings[name]})

    assert ran.returncode != 0
    assert "OLLAMA_PROXY_TLS_KEY: a certificate and its key are set together" in (
        ran.stderr
    )


def test_a_redirect_takes_no_key_along() -> None:
    """To another host it would be that one's, and without TLS everybody's."""
    asked: list[str] = []

    class Redirecting(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Redirecting)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with pytest.raises(ProxyError, match="answered 302"):
            ProxyClient(f"http://127.0.0.1:{server.server_address[1]}").status()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked == ["/status"]
