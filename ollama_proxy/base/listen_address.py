"""Read the address where the proxy listens, as ``OLLAMA_HOST`` writes it.

It imports little, since the health check uses it. Source: ``Host`` in Ollama's
``envconfig/config.go``, and ``SplitHostPort`` of Go's ``net``.
"""

import socket

_MAX_PORT = 65535
_SCHEME_PORTS = {"http": 80, "https": 443}
_DEFAULT = ("127.0.0.1", 11434)
_EVERY = {"", "0.0.0.0", "::"}  # noqa: S104 - what is asked for, no bind


def split_address(text: str, default_port: int = _DEFAULT[1]) -> tuple[str, int]:
    """Return host and port of an address, read as Ollama's server reads its own.

    Accepts ``host``, ``host:port``, ``:port`` and ``scheme://host:port/path``. The port
    defaults to 11434; to 80 with ``http://`` and to 443 with ``https://``. An empty
    host means every address; no value means loopback. Addresses are returned as the
    kernel writes them. Raises `ValueError` for an invalid host or port; Ollama
    replaces an invalid port by the default.
    """
    given = text.strip().strip("\"'").strip()
    scheme, found, rest = given.partition("://")
    if not found:
        scheme, rest = "", "ollama.com:443" if given == "ollama.com" else given
    default = _SCHEME_PORTS.get(scheme, default_port)
    authority = rest.split("/")[0]
    host, port = _split_port(authority) or (_bare_host(authority), "")
    return _checked_host(host, text), _checked_port(port, default, text)


def _split_port(authority: str) -> tuple[str, str] | None:
    """Return host and port; None if the text has no port."""
    host, colon, port = authority.rpartition(":")
    if host.startswith("["):
        host, closed, rest = host[1:].partition("]")
        colon = colon if closed and not rest else ""
    elif ":" in host:
        return None
    return (host, port) if colon and not set("[]") & set(host + port) else None


def _bare_host(authority: str) -> str:
    """Return the host of a text without a port; IPv6 needs no brackets here."""
    stripped = authority.strip("[]")
    if authority == f"[{stripped}]" or _address(stripped):
        return stripped
    return authority or _DEFAULT[0]


def _checked_host(host: str, text: str) -> str:
    """Return the host as it is bound; an address as the kernel writes it."""
    if address := _address(host):
        return address
    bare, zone, name = host.partition("%")
    if zone and name and ":" in bare and _address(bare):
        return host
    if ":" in host:
        raise ValueError(
            f"{text!r} is no address; write host:port, and IPv6 as [::1]:11434"
        )
    letters = host.translate(dict.fromkeys(map(ord, "._-")))
    if host and not (letters.isascii() and letters.isalnum()):
        raise ValueError(f"{text!r} has no valid host; write host:port")
    if _is_old_number(host):
        raise ValueError(
            f"{text!r} has no valid host; write host:port, and a port alone as :11434"
        )
    return host


def _address(host: str) -> str:
    """Return a literal address in its one form, IPv4 if it is one; else nothing."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            packed = socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        if packed[:12] == bytes(10) + b"\xff\xff":
            return socket.inet_ntop(socket.AF_INET, packed[12:])
        return socket.inet_ntop(family, packed)
    return ""


def _is_old_number(host: str) -> bool:
    """Tell whether C reads an address that Go does not: ``0``, ``127.1``, ``0x7f``.

    ``OLLAMA_HOST=0`` must not open every address.
    """
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True


def _checked_port(port: str, default: int, text: str) -> int:
    if not port:
        return default
    digits = port[port[0] in "+-" :]
    number = -1
    if digits.isascii() and digits.isdecimal():
        number = int(digits.lstrip("0")[:6] or "0")
    if not 0 <= number <= _MAX_PORT or (number and port[0] == "-"):
        raise ValueError(f"{text!r} has no valid port; write host:port, port 0–65535")
    return number


def is_every_address(host: str) -> bool:
    """Tell whether a host to listen at means every address of this machine."""
    return host in _EVERY


def client_host(host: str) -> str:
    """Return the host that a client on this machine connects to.

    ``::`` becomes an IPv4 address, which its one socket serves too: many containers can
    bind ``::`` while IPv6 is switched off, and ``::1`` fails there.
    """
    return "127.0.0.1" if is_every_address(host) else host


def client_url(host: str, port: int, *, is_tls: bool = False) -> str:
    """Return the address that a client on this machine uses."""
    scheme = "https" if is_tls else "http"
    return f"{scheme}://{host_and_port(client_host(host), port)}"


def names_https(text: str) -> bool:
    """Tell whether an address begins with ``https://``, as `split_address` reads it."""
    return text.strip().strip("\"'").strip().startswith("https://")


def host_and_port(host: str, port: int) -> str:
    """Return both as ``OLLAMA_HOST`` and URLs have them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
