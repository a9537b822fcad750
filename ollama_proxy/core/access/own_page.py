"""Tell requests of the proxy's own page from those that other pages make. Pure.

A browser sends a cookie with the requests of any page. ``SameSite=Strict`` keeps it
from other sites; ``Origin`` and ``Sec-Fetch-Site`` also tell another port or another
name of the same site.
"""

from ollama_proxy.core.access.cors import is_same_origin
from ollama_proxy.core.access.facts import HeaderView

_SAFE = frozenset({"GET", "HEAD"})
_OWN_SITES = frozenset({"same-origin", "none"})


def is_from_elsewhere(origin: str, host: str, headers: HeaderView) -> bool:
    """Tell whether a request says that another page makes it.

    ``origin``: "" without one. Programs that are no browsers say nothing.
    """
    site = headers.get("Sec-Fetch-Site", "")
    if site and site.lower() not in _OWN_SITES:
        return True
    return bool(origin) and not is_same_origin(origin, host)


def is_of_own_page(method: str, origin: str, host: str, headers: HeaderView) -> bool:
    """Tell whether a request with a session's cookie is the own page's.

    One that changes something has to prove it, by ``Origin`` or ``Sec-Fetch-Site``:
    every browser sends one of these with it.
    """
    if is_from_elsewhere(origin, host, headers):
        return False
    if method in _SAFE:
        return True
    site = headers.get("Sec-Fetch-Site", "").lower()
    return bool(origin) or site == "same-origin"
