"""Open the store of a deployment: the one module that knows which it is."""

from pathlib import Path

from ollama_proxy.store.ports import Store
from ollama_proxy.store.sqlite.store import SqliteStore


def open_store(folder: Path) -> Store:
    """Open the state in a folder, and lock the folder for this process.

    Raises `StartupError` if another process has it, or if it can't be read or written.
    """
    return SqliteStore(folder)
