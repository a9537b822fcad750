"""Forward names and import paths that plug-ins used before they were renamed."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def forwarded(former: str, now: Mapping[str, str]) -> Callable[[str], object]:
    """Return a module's ``__getattr__`` that forwards names to where they are now.

    ``now`` maps each name to ``module:name``, and ``*`` to the module of all others.
    Warns once (`DeprecationWarning`) per former module and process, at the import.
    Raises `AttributeError` for a name that neither has.
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


def with_former_fields(**now: str) -> Callable[[type[T]], type[T]]:
    """Return a class decorator under which fields also have their former names.

    ``now`` maps each former name to the present one. Warns once (`DeprecationWarning`)
    per class and process. Raises `TypeError`, as Python does, for a field that is given
    by both names.
    """

    def decorate(cls: type[T]) -> type[T]:
        build, has_warned = cls.__init__, False

        def warn(name: str) -> None:
            nonlocal has_warned
            if not has_warned:
                has_warned = True
                message = f"{cls.__name__}.{name} is now {cls.__name__}.{now[name]}"
                warnings.warn(message, DeprecationWarning, stacklevel=3)

        def init(self: T, *values: Any, **fields: Any) -> None:
            for name in now.keys() & fields.keys():
                warn(name)
                if now[name] in fields:
                    message = f"{cls.__name__} got {now[name]!r} by two names"
                    raise TypeError(message)
                fields[now[name]] = fields.pop(name)
            build(self, *values, **fields)

        def read(former: str) -> property:
            def get(self: T) -> Any:
                warn(former)
                return getattr(self, now[former])

            return property(get)

        cls.__init__ = init  # type: ignore[assignment,method-assign]  # the same fields, and more names
        for name in now:
            setattr(cls, name, read(name))
        return cls

    return decorate
