"""What a command proves itself with, and to whom."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from ollama_proxy.cli.own_credential import OwnCredential, is_same_proxy
from ollama_proxy.gateway.order_token import make_order_token, read_order_token
from tests.black_box import ProxyProcess, forked_proxy, run_cli

KEY = SecretStr("op_key")


def test_the_order_token_of_the_folder_comes_first(tmp_path: Path) -> None:
    make_order_token(tmp_path)
    credential = OwnCredential(tmp_path, KEY)
    assert credential.text() == read_order_token(tmp_path)
    make_order_token(tmp_path)  # the proxy has started again
    assert credential.text() == read_order_token(tmp_path)
    assert credential.advice() == ""


@pytest.mark.parametrize("written", [None, b"", b"nonsense"])
def test_without_a_token_the_key_is_sent(tmp_path: Path, written: bytes | None) -> None:
    if written is not None:
        (tmp_path / "order-token").write_bytes(written)
    assert OwnCredential(tmp_path, KEY).text() == "op_key"
    assert OwnCredential(None, KEY).text() == "op_key"
    assert OwnCredential(tmp_path).text() == ""
    assert "OLLAMA_PROXY_KEY" in OwnCredential(tmp_path).advice()


def test_a_key_is_not_shown(tmp_path: Path) -> None:
    assert "op_key" not in repr(OwnCredential(tmp_path, KEY))


@pytest.mark.parametrize(
    ("url", "running", "is_same"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434", True),
        ("http://localhost:11434", "http://127.0.0.1:11434", True),
        ("http://[::1]:11434", "http://127.0.0.1:11434", True),
        ("http://10.0.0.5:11434", "http://10.0.0.5:11434", True),
        ("http://localhost:11435", "http://127.0.0.1:11434", False),
        ("https://localhost:11434", "http://127.0.0.1:11434", False),
        ("http://10.0.0.5:11434", "http://127.0.0.1:11434", False),
        ("http://localhost.evil.example:11434", "http://127.0.0.1:11434", False),
        ("http://127.0.0.1.evil.example:11434", "http://127.0.0.1:11434", False),
    ],
)
def test_another_name_of_loopback_is_the_same_proxy(
    url: str, running: str, is_same: bool
) -> None:
    assert is_same_proxy(url, running) is is_same


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    with forked_proxy(tmp_path_factory.mktemp("own") / "s") as running:
        yield running


def test_a_command_that_finds_no_token_says_what_to_do(proxy: ProxyProcess) -> None:
    told = run_cli("sweep", "--dry-run", OLLAMA_HOST=proxy.url)
    assert told.returncode == 1
    assert "answered 401: orders to the proxy need a key" in told.stderr
    assert "run the command as the user of the proxy" in told.stderr
    assert "OLLAMA_PROXY_KEY" in told.stderr


def test_it_may_still_wake_and_stop_where_only_this_machine_can_connect(
    proxy: ProxyProcess,
) -> None:
    for order in ("wake", "stop", "status"):
        assert run_cli(order, OLLAMA_HOST=proxy.url).returncode == 0


def test_a_command_with_a_key_gives_orders_from_anywhere(proxy: ProxyProcess) -> None:
    folder = {"OLLAMA_PROXY_STATE_DIR": str(proxy.state)}
    made = run_cli("key", "add", "ops", "--routes", "admin", **folder)
    key = made.stdout.strip()
    assert key.startswith("op_")
    with_key = {"OLLAMA_HOST": proxy.url, "OLLAMA_PROXY_KEY": key}
    assert run_cli("sweep", "--dry-run", **with_key).returncode == 0
    assert run_cli("status", **with_key).returncode == 0
    wrong = {"OLLAMA_HOST": proxy.url, "OLLAMA_PROXY_KEY": key[:-1] + "-"}
    told = run_cli("sweep", "--dry-run", **wrong)
    assert "this proxy has no such key" in told.stderr
    assert key[:20] not in told.stderr


@contextmanager
def listener(elsewhere: str = "") -> Iterator[tuple[str, list[str]]]:
    """Answer as a proxy would, or point elsewhere; keep what it was shown."""
    shown: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers.get("Authorization", ""))
            if self.path == "/status" and elsewhere:
                self.send_response(307)
                self.send_header("Location", f"{elsewhere}/other")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = b'{"error": "no"}'
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", shown
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_no_other_server_is_shown_the_order_token(proxy: ProxyProcess) -> None:
    with listener() as (url, shown):
        folder = {"OLLAMA_PROXY_STATE_DIR": str(proxy.state)}
        told = run_cli("status", OLLAMA_HOST=url, **folder)
    assert told.returncode == 1
    assert shown
    assert set(shown) == {""}


def test_a_redirection_does_not_take_the_key_along() -> None:
    with listener() as (other, shown), listener(other) as (url, first):
        run_cli("status", OLLAMA_HOST=url, OLLAMA_PROXY_KEY="op_x")
    assert first == ["Bearer op_x"]
    assert set(shown) <= {""}
