"""Choose NVIDIA's drivers for a card: kinds of kernel modules, and branches.

The instance chooses the branch: the newest of these in the archive. Sources: the
reference of Exoscale's GPU types and Ollama's ``docs/gpu.mdx``.
"""

from dataclasses import dataclass

_BLACKWELL = frozenset({"gpurtx6000pro", "gpub300"})
_BEFORE_TURING = frozenset({"gpu", "gpu2"})  # P100, V100
_OPEN, _CLOSED = "server-open", "server"
_NO_LIMIT = 9999


@dataclass(frozen=True, slots=True)
class DriverRule:
    """Names the kinds that will do, the better one first, and the span of branches."""

    kinds: tuple[str, ...]
    least: int
    most: int = _NO_LIMIT


def driver_rule(family: str) -> DriverRule:
    """Return the drivers that support the cards of a family.

    The newest cards need the open modules. The oldest need the proprietary ones, of
    branch 580 at most. Ollama needs branch 550, and 570 on the oldest cards.
    """
    if family in _BLACKWELL:
        return DriverRule((_OPEN,), least=570)
    if family in _BEFORE_TURING:
        return DriverRule((_CLOSED,), least=570, most=580)
    return DriverRule((_CLOSED, _OPEN), least=550)
