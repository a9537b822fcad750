"""Check whether the proxy that listens on this machine serves.

A container engine runs this every few seconds for as long as the container lives. So it
avoids slow imports: neither the settings with their checks, nor an HTTP library. It
ignores `HTTP_PROXY`, since a response from a proxy would prove nothing about this
machine.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence

from ollama_proxy.base.listen_address import client_host, client_url, split_address

_TIMEOUT_S = 4.0  # less than the 5 s of the image's HEALTHCHECK
_FILE = "ollama-proxy.toml"
_STATUS_LINE_BYTES = 512
_LISTEN = "127.0.0.1:11434"


class UnhealthyError(Exception):
    """Reports that the proxy does not serve, or can't be asked; the text says why."""


def run(env: Mapping[str, str], file: str | None = None) -> int:
    """Print one line, on stderr if it is a fault; return the exit code, 0 or 1."""
    try:
        url = ask(env, file, now=time.perf_counter)
    except UnhealthyError as error:
        _tell(2, f"ollama-proxy: {error}\n")
        return 1
    _tell(1, f"{url} serves\n")
    return 0


def _tell(number: int, line: str) -> None:
    """Write a line, if that is possible: the exit code has the result, too."""
    with contextlib.suppress(OSError):
        os.write(number, line.encode("utf-8", "backslashreplace"))


def ask(
    env: Mapping[str, str],
    file: str | None,
    *,
    now: Callable[[], float],
    timeout_s: float = _TIMEOUT_S,
) -> str:
    """Return where the proxy serves; raises `UnhealthyError` if it does not.

    As for the other commands: a given address is used, and the address of the state
    folder's proxy if none is given or no proxy answers there.
    """
    end = now() + timeout_s
    given = _given(env, file)
    if given is None:
        return _ask(_running(env, file) or split_address(_LISTEN), end, now, timeout_s)
    try:
        return _ask(given, end, now, timeout_s)
    except UnhealthyError:
        running = _running(env, file) if now() < end else None
        if running is None or client_url(*running) == client_url(*given):
            raise
    return _ask(running, end, now, timeout_s)


def _ask(
    address: tuple[str, int], end: float, now: Callable[[], float], timeout_s: float
) -> str:
    """Return the URL of a proxy that serves. Raises `UnhealthyError`."""
    host, port = address
    url = client_url(host, port)
    if port == 0:
        raise UnhealthyError(
            "OLLAMA_HOST has port 0, which is another one at each start, and no proxy"
            " of the state folder runs; name a port, or set OLLAMA_PROXY_STATE_DIR"
        )
    try:
        status = _status(client_host(host), port, end, now)
    except TimeoutError as error:
        raise UnhealthyError(f"{url} does not answer in {timeout_s:g} s") from error
    except (OSError, ValueError) as error:
        raise UnhealthyError(f"nothing serves at {url} ({error})") from error
    if status != b"200":
        told = status.decode("ascii", "replace") or "no HTTP"
        raise UnhealthyError(f"{url}/healthz answers {told!r}, not 200")
    return url


def _given(env: Mapping[str, str], file: str | None) -> tuple[str, int] | None:
    """Return the configured host and port, as `serve` finds them; None if not set."""
    text = env.get("OLLAMA_HOST", "").strip()
    try:
        text_or_file = text or _of_file(file, "listen")
        return split_address(text_or_file) if text_or_file else None
    except (OSError, ValueError) as error:
        where = "OLLAMA_HOST" if text else (file or _FILE)
        raise UnhealthyError(f"{where}: {error}") from error


def _running(env: Mapping[str, str], file: str | None) -> tuple[str, int] | None:
    """Return where the proxy of the state folder listens; None if it is not known."""
    from ollama_proxy.base.environment import (  # noqa: PLC0415 - only if it is needed
        expanded,
        state_folder,
        unquoted,
    )
    from ollama_proxy.server.serving_address import running_url  # noqa: PLC0415 - likewise

    folder = state_folder(env)
    try:
        named = unquoted(env.get("OLLAMA_PROXY_STATE_DIR", ""))
        if named := named or _of_file(file, "state_dir"):
            folder = expanded(type(folder)(named), env)
        url = running_url(folder)
        return split_address(url) if url else None
    except (OSError, ValueError):
        return None


def _of_file(file: str | None, name: str) -> str:
    """Return the value of a setting in the settings file, "" if there is none."""
    if file is None and not os.path.exists(_FILE):  # noqa: PTH110 - pathlib is slow to import
        return ""
    import tomllib  # noqa: PLC0415 - only where there is a file

    with open(file or _FILE, "rb") as source:  # noqa: PTH123 - likewise
        return str(tomllib.load(source).get(name, ""))


def _status(host: str, port: int, end: float, now: Callable[[], float]) -> bytes:
    """Return the status of ``GET /healthz``; empty if the answer is no HTTP."""
    with socket.create_connection((host, port), _left(end, now)) as connection:
        connection.settimeout(_left(end, now))
        connection.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        head = b""
        while b"\n" not in head and len(head) < _STATUS_LINE_BYTES:
            connection.settimeout(_left(end, now))
            piece = connection.recv(_STATUS_LINE_BYTES)
            if not piece:
                break
            head += piece
    words: Sequence[bytes] = head.split(b"\r\n")[0].split(b" ", 2)
    is_http = len(words) > 1 and words[0].startswith(b"HTTP/1.")
    return words[1] if is_http else b""


def _left(end: float, now: Callable[[], float]) -> float:
    left = end - now()
    if left <= 0:
        raise TimeoutError
    return left
