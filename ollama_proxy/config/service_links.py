"""Find the variables that Kubernetes sets for each Service of a namespace.

A Service ``ollama-proxy`` gives every container in its namespace ``OLLAMA_PROXY_PORT``,
``OLLAMA_PROXY_SERVICE_HOST`` and more, which look like settings of ours. They are
recognised by name and value together, so that a misspelt setting is still reported.

Source: kubernetes.io/docs/tutorials/services/connect-applications-service (environment
variables), whose ``_PORT_…`` are those of ``docker run --link``.
"""

import ipaddress
import re
from collections.abc import Mapping

_NAME = re.compile(
    r"[A-Z0-9_]+?_(?:"
    r"(?P<host>SERVICE_HOST|PORT_[0-9]+_(?:TCP|UDP|SCTP)_ADDR)"
    r"|(?P<url>PORT|PORT_[0-9]+_(?:TCP|UDP|SCTP))"
    r"|(?P<protocol>PORT_[0-9]+_(?:TCP|UDP|SCTP)_PROTO)"
    r"|(?P<port>SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)_PORT)"
    r")"
)
_URL = re.compile(r"(?:tcp|udp|sctp)://(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>[0-9]+)")
_PROTOCOLS = {"tcp", "udp", "sctp"}
_MAX_PORT = 65535


def is_service_link(name: str, value: str) -> bool:
    """Tell whether a variable was set by Kubernetes for a Service."""
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    if match["host"]:
        return _is_address(value)
    if match["port"]:
        return _is_port(value)
    if match["protocol"]:
        return value in _PROTOCOLS
    url = _URL.fullmatch(value)
    return url is not None and _is_address(url["host"]) and _is_port(url["port"])


def service_links(env: Mapping[str, str], prefix: str) -> list[str]:
    """Return the names of those variables of Services that begin with ``prefix``."""
    names = (name for name in env if name.startswith(prefix))
    return sorted(name for name in names if is_service_link(name, env[name]))


def without_service_links(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without Kubernetes' variables for Services."""
    return {name: env[name] for name in env if not is_service_link(name, env[name])}


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _is_port(text: str) -> bool:
    is_number = text.isascii() and text.isdecimal()
    return is_number and 0 < int(text) <= _MAX_PORT
