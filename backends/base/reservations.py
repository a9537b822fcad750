"""Reserve a thing of a cloud for one launch, while others run in parallel."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserving(names: set[str], name: str | None) -> Iterator[None]:
    """Hold a name in a set while a block runs; nothing if it is None."""
    if name is None:
        yield
        return
    names.add(name)
    try:
        yield
    finally:
        names.discard(name)
