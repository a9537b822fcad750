"""Decide which web pages may send requests: Ollama's rules for ``Origin`` and ``Host``.

Pure. The rules are those of Ollama's server (v0.33: ``server/routes.go``,
``envconfig/config.go``) and of gin-contrib/cors 1.7.2, which it uses. Without the check
of the host, a web page could reach a loopback server by DNS rebinding.
"""

import ipaddress
from collections.abc import Collection, Sequence

_LOCAL_NAMES = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - names of origins
_APP_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
_LISTABLE = (
    "http://",
    "https://",
    "chrome-extension://",
    "safari-extension://",
    "moz-extension://",
    "ms-browser-extension://",
)
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
PREFLIGHT_HEADERS = (
    (
        "Access-Control-Allow-Headers",
        "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,"
        "X-Stainless-Arch,X-Stainless-Async,X-Stainless-Custom-Poll-Interval,"
        "X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
        "X-Stainless-Package-Version,X-Stainless-Poll-Helper,"
        "X-Stainless-Retry-Count,X-Stainless-Runtime,X-Stainless-Runtime-Version,"
        "X-Stainless-Timeout",
    ),
    ("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    ("Access-Control-Max-Age", "43200"),
)
_PREFLIGHT_VARY = (
    ("Vary", "Origin"),
    ("Vary", "Access-Control-Request-Method"),
    ("Vary", "Access-Control-Request-Headers"),
)

Headers = tuple[tuple[str, str], ...]


class CorsPolicy:
    """Decides which origins are allowed: Ollama's own list, and those the user adds.

    Raises `ValueError` for an entry with which Ollama's server would not start.
    """

    def __init__(self, added: Sequence[str] = ()) -> None:
        for entry in added:
            _refuse_malformed(entry)
        listed = [*added, *_default_origins()]
        self._everyone = "*" in added
        self._exact = frozenset(entry.lower() for entry in listed if "*" not in entry)
        self._wild = [entry.split("*") for entry in listed if "*" in entry]

    def allows(self, origin: str) -> bool:
        """Tell whether requests from ``origin`` are taken."""
        if self._everyone or origin in self._exact:
            return True
        return any(
            origin.startswith(head) and origin.endswith(tail)
            for head, tail in self._wild
        )

    def headers(self, origin: str) -> Headers:
        """Return what an answer to an allowed origin carries."""
        if self._everyone:
            return (("Access-Control-Allow-Origin", "*"),)
        return (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))

    def preflight_headers(self, origin: str) -> Headers:
        """Return what the answer to a preflight carries."""
        if self._everyone:
            return (*PREFLIGHT_HEADERS, ("Access-Control-Allow-Origin", "*"))
        allowed = ("Access-Control-Allow-Origin", origin)
        return (*PREFLIGHT_HEADERS, allowed, *_PREFLIGHT_VARY)


def _default_origins() -> list[str]:
    hosts = [
        f"{scheme}://{name}{port}"
        for name in _LOCAL_NAMES
        for scheme in ("http", "https")
        for port in ("", ":*")
    ]
    return hosts + [f"{scheme}://*" for scheme in _APP_SCHEMES]


def _refuse_malformed(entry: str) -> None:
    if entry.count("*") > 1:
        raise ValueError(f"{entry!r} has more than one *; write http://*.example.com")
    if "*" not in entry and not entry.startswith(_LISTABLE):
        raise ValueError(f"{entry!r} is not an origin; write https://example.com or *")


def is_same_origin(origin: str, host: str) -> bool:
    """Tell whether a page that this very host served is asking."""
    return origin in {f"http://{host}", f"https://{host}"}


def host_name(host: str) -> str:
    """Return the ``Host`` header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def is_own_address(name: str, own_addresses: Collection[str]) -> bool:
    """Tell whether a literal address is loopback, private or this machine's.

    Private means RFC 1918 and RFC 4193, as for Go's ``netip``; IPv4 addresses in IPv6
    notation (``::ffff:127.0.0.1``) are included.
    """
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return (
        address.is_loopback
        or any(address in network for network in _PRIVATE)
        or address.is_unspecified
        or str(address) in own_addresses
    )


def is_local_name(name: str, machine: str) -> bool:
    """Tell whether a name can only mean a machine of the own network."""
    lowered = name.lower()
    if lowered in {"", "localhost", machine.lower()}:
        return True
    return lowered.endswith(_LOCAL_SUFFIXES)
