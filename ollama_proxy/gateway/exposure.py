"""Describe how open the proxy is, for its start, ``check`` and ``/status``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Exposure:
    """Tells what may be done without a key.

    ``listen``: host and port as they are set. ``is_local``: only this machine can
    connect. ``needs_key``: tells whether requests need a key now.
    """

    listen: str
    is_local: bool
    needs_key: Callable[[], bool]

    def body(self) -> dict[str, Any]:
        """Return it for ``/status``."""
        return {
            "needs_key": self.needs_key(),
            "listen": self.listen,
            "only_this_machine": self.is_local,
            "warning": self.warning(),
        }

    def warning(self) -> str | None:
        """Return what a person should know; None if requests need a key."""
        if self.needs_key():
            return None
        if self.is_local:
            return (
                f"no key is needed: every program that reaches {self.listen}, a web"
                " server on this machine included, may use the models and start"
                " instances, which may cost money; `ollama-proxy key add NAME` makes a"
                " key"
            )
        return (
            f"no key is needed: whoever reaches {self.listen} may use the models and"
            " start instances, which may cost money; make a key with `ollama-proxy key"
            " add NAME`, or set OLLAMA_HOST to 127.0.0.1"
        )
