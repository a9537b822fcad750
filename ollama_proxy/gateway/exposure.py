"""Describe how open the proxy is, for its start, ``check`` and ``/status``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Exposure:
    """Tells what may be done without a key.

    ``listen``: host and port as they are set, by ``setting``; of several addresses one
    that others reach. ``is_local``: only this machine can connect.
    ``needs_key``: tells whether requests need a key now. ``is_off``: they never do,
    whatever keys there are.
    """

    listen: str
    is_local: bool
    needs_key: Callable[[], bool]
    is_off: bool = False
    setting: str = "OLLAMA_HOST"

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
        how = "make a key with `ollama-proxy key add NAME`"
        if self.is_off:
            how = "set OLLAMA_PROXY_AUTH to auto, it is off"
        if self.is_local:
            return (
                f"no key is needed: every program that reaches {self.listen}, a web"
                " server on this machine included, may use the models and start"
                f" instances, which may cost money; to end that, {how}"
            )
        return (
            f"no key is needed: whoever reaches {self.listen} may use the models and"
            f" start instances, which may cost money; {how}, or set {self.setting} to"
            " 127.0.0.1"
        )
