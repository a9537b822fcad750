"""Tell from a request's headers whether another server relays it. Pure."""

from collections.abc import Iterable

_FORWARDED = frozenset({"forwarded", "via", "x-real-ip"})
_BEGINNING = "x-forwarded-"


def are_forwarded(names: Iterable[str]) -> bool:
    """Tell whether headers of these names come from a server that relays a request.

    A plain ``proxy_pass`` adds none of them, so their absence proves nothing.
    """
    lowered = (name.lower() for name in names)
    return any(name in _FORWARDED or name.startswith(_BEGINNING) for name in lowered)
