"""Check whether the proxy that listens on this machine serves, or the agent of a hub.

A container engine runs this every few seconds for as long as the container lives. So it
avoids slow imports: neither the settings with their checks, nor an HTTP library. It
ignores `HTTP_PROXY`, since a response from a proxy would prove nothing about this
machine.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from ollama_proxy.base.listen_address import client_host, client_url, split_address

_TIMEOUT_S = 4.0  # less than the 5 s of the image's HEALTHCHECK
_FILE = "ollama-proxy.toml"
_STATUS_LINE_BYTES = 512
_LISTEN = "127.0.0.1:11434"
_MAX_PEM_BYTES = 1024 * 1024


class Address:
    """Holds where a proxy listens; ``certificate``: that it shows, PEM, on TLS.

    "": any will do, since nothing secret is sent.
    """

    def __init__(self, host: str, port: int, certificate: str | None = None) -> None:
        self.host = host
        self.port = port
        self.certificate = certificate

    def is_at(self, other: "Address") -> bool:
        """Tell whether asking the other one would be the same."""
        return (self.url, self.certificate) == (other.url, other.certificate)

    @property
    def url(self) -> str:
        """Return the address that a client on this machine uses."""
        return client_url(self.host, self.port, is_tls=self.certificate is not None)


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
    folder's proxy if none is given or no proxy answers there. An agent that has the
    folder is asked before: at the given address is the Ollama that it guards.
    """
    end = now() + timeout_s
    if _has_agent(env) and (agent := _running(env, file, "agent")) is not None:
        return _ask(agent, end, now, timeout_s)
    given = _given(env, file)
    if given is None:
        address = _running(env, file) or _address(_LISTEN, env, file)
        return _ask(address, end, now, timeout_s)
    try:
        return _ask(given, end, now, timeout_s)
    except UnhealthyError:
        running = _running(env, file) if now() < end else None
        if running is None or running.is_at(given):
            raise
    return _ask(running, end, now, timeout_s)


def _has_agent(env: Mapping[str, str]) -> bool:
    """Tell whether an agent has, or had, the folder that the image names."""
    folder = env.get("OLLAMA_PROXY_STATE_DIR", "").strip()
    path = f"{folder}/node-serving.json"
    return bool(folder) and os.path.exists(path)  # noqa: PTH110 - pathlib is slow to import


def _ask(
    address: Address, end: float, now: Callable[[], float], timeout_s: float
) -> str:
    """Return the URL of a proxy that serves. Raises `UnhealthyError`."""
    url = address.url
    if address.port == 0:
        raise UnhealthyError(
            "OLLAMA_HOST has port 0, which is another one at each start, and no proxy"
            " of the state folder runs; name a port, or set OLLAMA_PROXY_STATE_DIR"
        )
    try:
        status = _status(address, end, now)
    except TimeoutError as error:
        raise UnhealthyError(f"{url} does not answer in {timeout_s:g} s") from error
    except (OSError, ValueError) as error:
        raise UnhealthyError(f"nothing serves at {url} ({error})") from error
    if status != b"200":
        told = status.decode("ascii", "replace") or "no HTTP"
        raise UnhealthyError(f"{url}/healthz answers {told!r}, not 200")
    return url


def _given(env: Mapping[str, str], file: str | None) -> Address | None:
    """Return the configured address, as `serve` finds it; None if it is not set."""
    text = env.get("OLLAMA_HOST", "").strip()
    try:
        text_or_file = text or _of_file(file, "listen")
        return _address(text_or_file, env, file) if text_or_file else None
    except (OSError, ValueError) as error:
        where = "OLLAMA_HOST" if text else (file or _FILE)
        raise UnhealthyError(f"{where}: {error}") from error


def _address(listen: str, env: Mapping[str, str], file: str | None) -> Address:
    """Return where a proxy with these settings listens, and what it shows."""
    host, port = split_address(listen)
    path = env.get("OLLAMA_PROXY_TLS_CERT", "").strip() or _of_file(file, "tls_cert")
    if not path:
        return Address(host, port)
    from pathlib import Path  # noqa: PLC0415 - slow to import, and only on TLS

    from ollama_proxy.base.environment import expanded, unquoted  # noqa: PLC0415 - likewise
    from ollama_proxy.base.pinned_tls import first_certificate  # noqa: PLC0415 - likewise

    try:
        with expanded(Path(unquoted(path)), env).open("rb") as source:
            text = source.read(_MAX_PEM_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise UnhealthyError(f"OLLAMA_PROXY_TLS_CERT: {error}") from error
    return Address(host, port, first_certificate(text))


def _running(
    env: Mapping[str, str], file: str | None, kind: str = "proxy"
) -> Address | None:
    """Return where the proxy of the state folder listens, or its ``agent``.

    None if it is not known.
    """
    from ollama_proxy.base.environment import (  # noqa: PLC0415 - only if it is needed
        expanded,
        state_folder,
        unquoted,
    )
    from ollama_proxy.base.serving_address import (  # noqa: PLC0415 - likewise
        OF_AGENT,
        OF_PROXY,
        running_proxy,
    )

    folder = state_folder(env)
    try:
        named = unquoted(env.get("OLLAMA_PROXY_STATE_DIR", ""))
        if named := named or _of_file(file, "state_dir"):
            folder = expanded(type(folder)(named), env)
        running = running_proxy(folder, OF_AGENT if kind == "agent" else OF_PROXY)
        if running is None:
            return None
        host, port = split_address(running.url)
        certificate = running.certificate or None
        if kind == "agent" and running.url.startswith("https:"):
            certificate = ""
        return Address(host, port, certificate)
    except (OSError, ValueError):
        return None


def _of_file(file: str | None, name: str) -> str:
    """Return the value of a setting in the settings file, "" if there is none."""
    if file is None and not os.path.exists(_FILE):  # noqa: PTH110 - pathlib is slow to import
        return ""
    import tomllib  # noqa: PLC0415 - only where there is a file

    with open(file or _FILE, "rb") as source:  # noqa: PTH123 - likewise
        return str(tomllib.load(source).get(name, ""))


@contextlib.contextmanager
def _connected(
    address: Address, end: float, now: Callable[[], float]
) -> Iterator[socket.socket]:
    """Connect to a proxy; on TLS to one that shows the right certificate."""
    place = (client_host(address.host), address.port)
    with socket.create_connection(place, _left(end, now)) as connection:
        if address.certificate is None:
            yield connection
            return
        from ollama_proxy.base.pinned_tls import pinned, unchecked  # noqa: PLC0415 - only on TLS

        given = address.certificate
        trusted = pinned([given]) if given else unchecked()
        connection.settimeout(_left(end, now))
        with trusted.wrap_socket(connection) as on_tls:
            yield on_tls


def _status(address: Address, end: float, now: Callable[[], float]) -> bytes:
    """Return the status of ``GET /healthz``; empty if the answer is no HTTP."""
    with _connected(address, end, now) as connection:
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
