"""Hold a response that the proxy makes itself: the one thing both servers can send."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Reply:
    """Holds a whole response of our own.

    ``headers`` are names and values in the order in which they are sent;
    ``Content-Length`` and ``Date`` are added by the server that sends it.
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
