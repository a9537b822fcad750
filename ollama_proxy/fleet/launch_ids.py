"""Draw the ids of launches."""

import secrets
from typing import Protocol

from ollama_proxy.core.lifecycle.record import LaunchId


class LaunchIdSource(Protocol):
    """Draws launch ids."""

    def __call__(self) -> LaunchId:
        """Return an id that was never used."""


def random_launch_id() -> LaunchId:
    """Return an id that was never used: 64 random bits, fit for any cloud's tags."""
    return LaunchId(f"l{secrets.token_hex(8)}")
