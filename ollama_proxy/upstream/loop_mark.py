"""Mark each request that leaves the proxy, and refuse one that comes back.

If an upstream leads back to the proxy, directly or through other proxies, one request
becomes thousands: each pass sends another. As with ``Via`` (RFC 9110 §7.6.3) every
proxy adds a mark of its own, and refuses a request that has it already with 508 (RFC
5842 §7.2). A real Ollama ignores the header.
"""

import hashlib
from collections.abc import Iterable, Mapping

VIA = "X-Ollama-Proxy-Via"
"""The header of the marks; with several proxies, several lines or commas."""

MOST_PROXIES = 8
"""How many proxies a request may have passed."""

LOOP_DETECTED = 508

_LONGEST = 512
_DIGITS = 16
_LOOP = (
    "this request has passed this proxy before: what stands upstream leads back to it;"
    " set OLLAMA_PROXY_UPSTREAM_URL, here or at a proxy behind, to the address of an"
    " Ollama server"
)
_TOO_MANY = (
    f"this request has passed {MOST_PROXIES} proxies or more; set"
    " OLLAMA_PROXY_UPSTREAM_URL to the address of an Ollama server"
)


class LoopMark:
    """Holds the mark of one proxy: a hash, so that it does not reveal the owner id.

    ``headers`` and ``line``: added to each request, for aiohttp and as bytes.
    """

    def __init__(self, owner_id: str) -> None:
        hashed = hashlib.sha256(f"ollama-proxy via {owner_id}".encode())
        self.text = hashed.hexdigest()[:_DIGITS]
        self.headers: Mapping[str, str] = {VIA: self.text}
        self.line = f"{VIA}: {self.text}\r\n".encode()

    def objection(self, marks: Iterable[str]) -> str | None:
        """Return why a request with these marks must not be relayed; None if it may.

        ``marks``: the values of its `VIA` headers.
        """
        joined = ",".join(marks)
        if not joined:
            return None
        if len(joined) > _LONGEST:
            return _TOO_MANY
        passed = [mark.strip() for mark in joined.split(",")]
        if self.text in passed:
            return _LOOP
        return _TOO_MANY if len(passed) >= MOST_PROXIES else None

    def is_on(self, status: int, headers: Mapping[str, str]) -> bool:
        """Tell whether a response shows that our own request looped back."""
        return status == LOOP_DETECTED and headers.get(VIA) == self.text
