"""Where the proxy listens, as ``OLLAMA_HOST`` writes it.

Nothing is imported, since the health check loads little else.
"""

_MAX_PORT = 65535
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the address of a client, not a bind


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of an address, read as Ollama's server reads its own.

    ``host``, ``host:port``, ``:port`` or ``scheme://host:port/path``. Without a
    port it is 11434, with ``http://`` 80 and with ``https://`` 443.
    """
    scheme, found, rest = text.strip().strip("\"'").partition("://")
    if not found:
        scheme, rest = "", scheme
    default = {"http": 80, "https": 443}.get(scheme, 11434)
    authority = rest.split("/")[0]
    host, port = _split_port(authority)
    if port and not (port.isdecimal() and int(port) <= _MAX_PORT):
        raise ValueError(f"{text!r} has no valid port; write host:port, port 0–65535")
    return host or "127.0.0.1", int(port) if port else default


def _split_port(authority: str) -> tuple[str, str]:
    if authority.startswith("["):
        host, _, tail = authority[1:].partition("]")
        return host, tail.removeprefix(":")
    if authority.count(":") > 1:
        return authority, ""
    host, _, port = authority.partition(":")
    return host, port


def client_host(host: str) -> str:
    """Return the host that a client on this machine connects to."""
    return _EVERYWHERE.get(host, host)


def client_url(host: str, port: int) -> str:
    """Return the address that a client on this machine uses."""
    host = client_host(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
