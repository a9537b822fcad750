"""Commands against clouds that answer badly: sentences with a setting, nothing raw."""

import contextlib
import socket
import socketserver
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.black_box import run_cli
from tests.ports import address_of_nobody

PAGE = (
    "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head>"
    "<body><h1>nginx</h1></body></html>"
)
SECRET = "s3cr3t-of-the-test"
RAW = (
    "<html",
    "<!doctype",
    "<body",
    "traceback",
    '{"',
    "\x1b",
    "\\x1b",
    "jsondecodeerror",
    "connectionerror",
    "payloaderror",
    "disconnectederror",
    "urllib3",
    SECRET,
)


def http(status: str, body: str, *more: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = [f"HTTP/1.1 {status}", f"Content-Length: {size}", "Connection: close", *more]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


ANSWERS = {
    "500, a page": http("500 Oops", PAGE),
    "403, a page": http("403 Forbidden", PAGE),
    "401, a page": http("401 Unauthorized", PAGE),
    "404, a page": http("404 Not Found", PAGE),
    "200, a page": http("200 OK", PAGE),
    "a page in JSON": http("500 Oops", '{"message": "<html><body>no</body></html>"}'),
    "a traceback in JSON": http(
        "500 Oops",
        '{"error": "Traceback (most recent call last):\\n  File x\\nKeyError: 1"}',
    ),
    "colours in JSON": http("500 Oops", '{"message": "\\u001b[31mno\\u001b[0m"}'),
    "JSON of another shape": http("400 No", '{"errors": [{"code": 7}]}'),
    "a list": http("200 OK", '[1, "two", null]'),
    "a number": http("200 OK", "17"),
    "a log-in page": http("302 Found", PAGE, "Location: https://login.invalid/"),
    "half of an answer": http("200 OK", '{"a', length=999),
    "nothing": b"",
}
UNREACHED = {
    "refused": "http://127.0.0.1:1",
    "unknown name": "http://cloud.invalid",
    "no TLS": "https://127.0.0.1:{port}",
}
CLOUDS = {
    "exoscale": "EXOSCALE_",
    "ovh": "OVH_AI_",
    "fly": "FLY_",
}


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Answer every request with these bytes; yield the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.settimeout(5.0)
                self.request.recv(65536)
                self.request.sendall(answer)
                self.request.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def environment(cloud: str, url: str) -> dict[str, str]:
    image = "127.0.0.1:1/team/ollama:1"
    return {
        "exoscale": {
            "EXOSCALE_API_KEY": "EXOkey",
            "EXOSCALE_API_SECRET": SECRET,
            "EXOSCALE_API_ENDPOINT": url,
        },
        "ovh": {
            "OVH_AI_TOKEN": SECRET,
            "OVH_REGION": "GRA",
            "OVH_AI_API_URL": url,
            "OVH_IMAGE": image,
        },
        "fly": {
            "FLY_API_TOKEN": SECRET,
            "FLY_APP": "an-app",
            "FLY_FLAPS_BASE_URL": url,
            "FLY_IMAGE": image,
        },
    }[cloud]


def said_by(command: str, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """Run a command; return its code and all that it printed."""
    words = [command, "127.0.0.1:1/team/ollama:1"] if command == "deploy" else [command]
    place = {
        "OLLAMA_PROXY_STATE_DIR": str(folder),
        "OLLAMA_HOST": address_of_nobody(),
    }
    done = run_cli(*words, **place, **env)
    return done.returncode, done.stdout + done.stderr


def is_plain(said: str) -> bool:
    return not any(raw in said.lower() for raw in RAW)


FEW = ("500, a page", "200, a page", "a number", "half of an answer", "no TLS")
CASES = [
    (cloud, name)
    for cloud in CLOUDS
    for name in (FEW if cloud == "ovh" else (*ANSWERS, *UNREACHED))
]
"""OVH and Fly are asked by the same client, so one of them meets all of it."""


@pytest.mark.parametrize(("cloud", "name"), CASES)
def test_check_tells_of_a_cloud_that_answers_badly_in_words(
    tmp_path: Path, cloud: str, name: str
) -> None:
    with answering(ANSWERS.get(name, http("200 OK", PAGE))) as port:
        url = UNREACHED.get(name, "http://127.0.0.1:{port}").format(port=port)
        code, said = said_by("check", tmp_path, environment(cloud, url))

    assert is_plain(said)
    assert code == 1
    assert CLOUDS[cloud] in said


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("command", ["status", "deploy"])
@pytest.mark.parametrize("name", ["500, a page", "a list"])
def test_other_commands_tell_of_it_in_words(
    tmp_path: Path, cloud: str, command: str, name: str
) -> None:
    with answering(ANSWERS.get(name, b"")) as port:
        url = UNREACHED.get(name, "http://127.0.0.1:{port}").format(port=port)
        _, said = said_by(command, tmp_path, environment(cloud, url))

    assert is_plain(said)


PROGRAMS = {
    "a traceback": "printf 'Traceback (most recent call last):\\n  File x\\nOops\\n'"
    " >&2; exit 1",
    "colours": "printf '\\033[31mrequest error: 500\\033[0m\\n' >&2; exit 1",
    "a log line": "echo '2026-01-02T03:04:05Z ERROR hyper: no' >&2; exit 1",
    "a page": f"echo 'request error: 502: {PAGE}' >&2; exit 1",
    "a page in place of JSON": f"echo '{PAGE}'",
    "a signal": "kill -9 $$",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_check_tells_of_an_ovhai_that_fails_in_words(tmp_path: Path, name: str) -> None:
    program = tmp_path / "ovhai"
    program.write_text(f"#!/bin/sh\n{PROGRAMS[name]}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    env = {
        "OLLAMA_PROXY_BACKEND": "ovh",
        "OVH_DRIVER": "cli",
        "OVHAI_BIN": str(program),
    }
    code, said = said_by(
        "check", tmp_path / "s", env | {"OVH_AI_CALL_TOKEN": SECRET, "HOME": "/nowhere"}
    )

    assert is_plain(said)
    assert code == 1
    assert "wrong log-in" in said
    assert "OVH" in said


@pytest.mark.parametrize("name", ["500, a page", *FEW[1:4], "a list", "nothing"])
def test_check_tells_of_a_registry_that_answers_badly_in_words(
    tmp_path: Path, name: str
) -> None:
    with answering(ANSWERS[name]) as port:
        image = f"127.0.0.1:{port}/team/ollama:1"
        env = environment("fly", f"http://{address_of_nobody()}")
        with answering(http("200 OK", "{}")) as api:
            env |= {"FLY_FLAPS_BASE_URL": f"http://127.0.0.1:{api}", "FLY_IMAGE": image}
            _, said = said_by("check", tmp_path, env)

    assert is_plain(said)
    (line,) = [one for one in said.splitlines() if one.startswith("wrong image")]
    assert image in line
