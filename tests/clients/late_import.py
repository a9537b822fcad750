"""Client libraries that are loaded by the first test that uses them.

All four take 1.6 s of processor time. Each worker imports every test module, and most
workers run no test with these clients.
"""

import importlib
from typing import Any


class LateImport:
    """Stands for a module until something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest looks whether it is a test or a fixture
            raise AttributeError(name)
        return getattr(importlib.import_module(self._name), name)
