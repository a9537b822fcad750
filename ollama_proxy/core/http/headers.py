"""Choose the headers that are forwarded, in both directions.

The hop-by-hop headers of RFC 9110 §7.6.1 and those that ``Connection`` names are
dropped. All others pass, in order and including repetitions.
"""

from collections.abc import Iterable, Mapping

from multidict import CIMultiDict, CIMultiDictProxy

GUARD_HEADER = "X-Ollama-Proxy-Guard"
"""The header by which a guard marks the answers of its Ollama."""

GUARD_TOKEN = "X-Ollama-Proxy-Token"  # noqa: S105 - a header's name
"""The header for a guard's token where a gateway wants ``Authorization``."""

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-authentication-info",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
SESSION_COOKIE = "ollama_proxy_session"
"""The cookie in which a browser that is logged in to the page keeps its session."""

POOL_HEADER = "X-Ollama-Proxy-Pool"
"""The header by which a request without a model names its pool."""

RETRY_HEADER = "X-Ollama-Proxy-Retry"
"""The header by which a client has its request sent to another node after a break."""

NOT_FOR_UPSTREAM = _HOP_BY_HOP | {
    "host",
    "expect",
    "origin",
    GUARD_TOKEN.lower(),
    POOL_HEADER.lower(),
    RETRY_HEADER.lower(),
}
"""Headers of a client's that an instance does not get, in lower case."""

_NOT_FOR_CLIENT = _HOP_BY_HOP | {GUARD_HEADER.lower()}
_CORS = "access-control-"

Headers = CIMultiDict[str] | CIMultiDictProxy[str]


def for_upstream(headers: Headers) -> CIMultiDict[str]:
    """Return the client's headers for the instance.

    ``Host`` is replaced by the instance's; ``Expect`` and ``Origin`` are handled by the
    proxy.
    """
    kept = [
        field for field in headers.items() if field[0].lower() not in NOT_FOR_UPSTREAM
    ]
    return _unnamed(headers, kept)


def for_client(headers: Headers) -> CIMultiDict[str]:
    """Return the instance's headers as the client gets them, without its CORS.

    Nor does it set the cookie of our page: a machine of a house could log people in or
    out.
    """
    kept = [
        field
        for field in headers.items()
        if (name := field[0].lower()) not in _NOT_FOR_CLIENT
        and not name.startswith(_CORS)
        and not (name == "set-cookie" and _sets_session(field[1]))
    ]
    return _unnamed(headers, kept)


def _sets_session(cookie: str) -> bool:
    return cookie.partition("=")[0].strip() == SESSION_COOKIE


def _unnamed(headers: Headers, kept: list[tuple[str, str]]) -> CIMultiDict[str]:
    """Return headers without those that ``Connection`` names."""
    if "Connection" in headers:
        named = _named_by_connection(headers)
        kept = [field for field in kept if field[0].lower() not in named]
    return CIMultiDict(kept)


def _named_by_connection(headers: Headers) -> set[str]:
    values: Iterable[str] = headers.getall("Connection", ())
    return {name.strip().lower() for value in values for name in value.split(",")}


def media_type(headers: Mapping[str, str]) -> str:
    """Return the type of a body without parameters, in lower case; "" if it has none.

    Not aiohttp's `content_type`, which caches the last 56 headers of up to 1 MB each.
    """
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def preferred_wait_s(headers: Headers) -> float | None:
    """Return N of ``Prefer: wait=N`` (RFC 7240 §4.3), if it is there and valid."""
    for value in headers.getall("Prefer", ()):
        for preference in value.split(","):
            name, _, number = preference.split(";")[0].partition("=")
            digits = number.strip().strip('"')
            if name.strip().lower() == "wait" and digits.isdecimal():
                return float(digits)
    return None
