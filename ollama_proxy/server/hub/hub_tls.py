"""Show nodes the hub's own certificate, and everybody else the owner's."""

import ssl
from collections.abc import Callable

from ollama_proxy.core.nodes.tls_names import HUB_NAME


class HubTls:
    """Returns what a handshake shows.

    Nodes ask for the hub by `HUB_NAME`, whatever its address. ``owners`` returns what
    other clients get; None: the owner has no certificate, so all get the hub's.
    """

    def __init__(
        self, hub: ssl.SSLContext, owners: Callable[[], ssl.SSLContext] | None
    ) -> None:
        self._hub, self._owners = hub, owners

    def context(self) -> ssl.SSLContext:
        """Return what a handshake of this moment begins with."""
        if self._owners is None:
            return self._hub
        context = self._owners()
        if context.sni_callback is None:  # each renewal brings another context
            context.sni_callback = self._choose
        return context

    def _choose(
        self, asked: ssl.SSLObject, name: str | None, _context: ssl.SSLContext
    ) -> None:
        if name == HUB_NAME:
            asked.context = self._hub
