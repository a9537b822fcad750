"""Names under the import paths that plug-ins used before the modules had packages."""

import importlib
import warnings
from collections.abc import Callable, Mapping


def forwarded(former: str, now: Mapping[str, str]) -> Callable[[str], object]:
    """Return a module's ``__getattr__`` that finds names where they are now.

    ``now`` maps each name to ``module:name``, and ``*`` to the module of all others.
    There is one `DeprecationWarning` per former module and process, at the import.
    Raises `AttributeError` for what neither has.
    """
    has_warned = False

    def find(name: str) -> object:
        nonlocal has_warned
        module, _, current = now.get(name, now["*"]).partition(":")
        if name.startswith("__"):
            raise AttributeError(f"module {former!r} has no attribute {name!r}")
        found: object = getattr(importlib.import_module(module), current or name)
        if not has_warned:
            has_warned = True
            message = f"{former} is now {module}; import from there"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
        return found

    return find
