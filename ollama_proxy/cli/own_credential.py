"""Choose what a command proves itself with: the order token, or a key.

The order token is sent to the proxy of the state folder alone: whatever else answers at
an address that a person has set must not get it.
"""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from ollama_proxy.gateway.order_token import read_order_token

_ADVICE = (
    "run the command as the user of the proxy (for a container: `docker exec NAME"
    " ollama-proxy …`), or set OLLAMA_PROXY_KEY to a key with the right 'admin'"
)


@dataclass(frozen=True, slots=True)
class OwnCredential:
    """Finds the order token or the key of a command, at each request anew.

    ``folder``: the state folder of the proxy that is asked; None if it is another
    proxy. A proxy has a new order token after each start.
    """

    folder: Path | None = None
    key: SecretStr | None = None

    def text(self) -> str:
        """Return what to send; "" if there is nothing."""
        if self.folder is not None:
            try:
                if token := read_order_token(self.folder):
                    return token
            except OSError:
                pass
        return self.key.get_secret_value() if self.key is not None else ""

    def advice(self) -> str:
        """Return what a person can do if the proxy wants more than was sent."""
        return "" if self.text() else _ADVICE


NO_CREDENTIAL = OwnCredential()


def is_same_proxy(url: str, running: str) -> bool:
    """Tell whether an address is that of the running proxy, by another name of it."""
    if url == running:
        return True
    given, known = urlsplit(url), urlsplit(running)
    return (
        (given.scheme, given.port) == (known.scheme, known.port)
        and _is_loopback(given.hostname or "")
        and _is_loopback(known.hostname or "")
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
