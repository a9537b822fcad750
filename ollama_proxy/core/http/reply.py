"""Hold a response that the proxy makes itself: the one thing both servers can send."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Reply:
    """Holds a complete response of our own.

    ``headers``: names and values, in the order in which they are sent. The server adds
    ``Content-Length`` and ``Date``.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    def with_headers(self, *added: tuple[str, str]) -> "Reply":
        """Return the response with headers, in place of those of the same name."""
        if not added:
            return self
        names = {name.lower() for name, _ in added}
        kept = [field for field in self.headers if field[0].lower() not in names]
        return replace(self, headers=(*kept, *added))
