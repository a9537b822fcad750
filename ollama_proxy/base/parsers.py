"""Parse values that people write: lengths of time, sizes, names, addresses."""

import ipaddress
import re

from pydantic import BaseModel, ConfigDict

from ollama_proxy.base.listen_address import client_url, names_https, split_address
from ollama_proxy.base.upstream_url import without_login

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_UNITS_S = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*([kmg]i?b?|b)?", re.IGNORECASE)
_SIZE_POWERS = {"k": 10, "m": 20, "g": 30}
_LEVELS = {
    "trace": "debug",
    "verbose": "debug",
    "information": "info",
    "notice": "info",
    "warn": "warning",
    "err": "error",
    "critical": "error",
    "fatal": "error",
    "panic": "error",
}
"""What other programs call the levels that we have."""
_MAX_PORT = 65535
_NO_PORT = -1
_LONGEST_S = 100 * 365 * 86400.0


def parse_duration(value: object) -> float:
    """Return seconds from ``90``, ``"90s"``, ``"30m"``, ``"2h"`` or ``"1h30m"``."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 <= value < _LONGEST_S:  # type: ignore[operator]  # a number
        return float(value)  # type: ignore[arg-type]  # likewise
    text = str(value).strip().lower()
    parts = _DURATION.findall(text)
    if not parts or re.sub(_DURATION, "", text).strip():
        raise ValueError(f"{value!r} is not a duration; write 90s, 30m or 2h")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def parse_size(value: object) -> int:
    """Return bytes from ``1048576``, ``"64k"``, ``"16MiB"`` or ``"2g"``."""
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size; write 64k, 16m or 2g")
    unit = (match[2] or "").lower()[:1]
    return int(match[1]) << _SIZE_POWERS.get(unit, 0)


def parse_log_level(value: object) -> str:
    """Return the level that is meant by ``warn``, ``WARNING``, ``err`` or ``fatal``."""
    text = str(value).strip().lower()
    return _LEVELS.get(text, text)


def parse_word(value: object) -> str:
    """Return a word of a few that are known: in lower case, without blanks around."""
    return str(value).strip().lower()


def parse_names(value: object) -> tuple[str, ...]:
    """Return the names of a comma-separated text, or of a list, each once."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is not a list of names")  # noqa: TRY004 - pydantic's
    names = [str(name).strip() for name in value]
    return tuple(dict.fromkeys(name for name in names if name))


def parse_networks(value: object) -> tuple[str, ...]:
    """Return networks in CIDR notation from a list; a bare address is one of one."""
    networks = []
    for name in parse_names(value):
        try:
            networks.append(str(ipaddress.ip_network(name, strict=False)))
        except ValueError:
            message = f"{name!r} is not a network; write 203.0.113.7/32"
            raise ValueError(message) from None
    return tuple(networks)


class Listen(BaseModel):
    """Holds the address where the proxy listens.

    ``is_tls``: it was written with ``https://``. Only commands heed that: they may ask
    a proxy behind a gateway.
    """

    model_config = ConfigDict(frozen=True)

    host: str
    port: int
    is_tls: bool = False

    @property
    def url(self) -> str:
        """Return the address that a client on this machine uses."""
        return client_url(self.host, self.port, is_tls=self.is_tls)

    def over(self, *, is_tls: bool) -> "Listen":
        """Return the same address, on TLS or not."""
        return self.model_copy(update={"is_tls": is_tls})


def parse_listen(value: object) -> Listen:
    """Return the address in ``OLLAMA_HOST``: see `ollama_proxy.base.listen_address`."""
    if isinstance(value, Listen):
        return value
    host, port = split_address(str(value))
    return Listen(host=host, port=port, is_tls=names_https(str(value)))


def parse_metrics_listen(value: object) -> Listen | None:
    """Return the address in a text that has to name a port; None for no text."""
    if value is None or isinstance(value, Listen):
        return value
    host, port = split_address(str(value), _NO_PORT)
    if port == _NO_PORT:
        raise ValueError(f"{value!r} names no port; write 127.0.0.1:9464")
    return Listen(host=host, port=port)


def replace_listen(listen: Listen, host: str | None, port: str | None) -> Listen:
    """Return an address with another host, port or both; None keeps a part.

    The host may include a port, as in ``OLLAMA_HOST``. Raises `ValueError`.
    """
    if host is not None:
        name, number = split_address(host, listen.port)
        listen = Listen(host=name, port=number)
    return listen if port is None else Listen(host=listen.host, port=_port(port))


def _port(text: str) -> int:
    number = int(text) if re.fullmatch(r"0*[0-9]{1,5}", text) else -1
    if not 0 <= number <= _MAX_PORT:
        raise ValueError(f"{text!r} is not a port; write one from 0 to 65535")
    return number


def parse_url(value: object) -> str:
    """Return a base URL without a trailing slash."""
    text = str(value).strip().rstrip("/")
    if not re.fullmatch(r"https?://[^/\s@]+(/\S*)?", text):
        message = f"{without_login(text)!r} is not a URL; write http://host:port"
        raise ValueError(message)
    return text
