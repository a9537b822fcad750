"""Run the event loop that a long-lived command has: the fastest one that is there."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any


def run_loop(coro: Coroutine[Any, Any, None]) -> None:
    """Run ``coro`` until it ends."""
    if sys.platform == "win32":
        asyncio.run(coro)
        return
    import uvloop  # noqa: PLC0415 - not on every platform

    uvloop.run(coro)
