"""Count the brackets of JSON while it passes, in pieces of any size.

Nothing is parsed: strings are removed, and the brackets outside of them are counted. So
a value of many megabytes costs a few passes over each piece, and no memory.
"""


class Brackets:
    """Counts how many objects and arrays are open, and whether a string is."""

    def __init__(self) -> None:
        self.depth = 0
        self.in_string = False
        self._half_escape = b""

    @property
    def are_closed(self) -> bool:
        """Tell whether nothing is open."""
        return self.depth == 0 and not self.in_string

    def add(self, data: bytes) -> None:
        """Count a piece; it may begin and end anywhere."""
        data = self._unescaped(self._half_escape + data)
        parts = data.split(b'"')
        outside = b"".join(parts[int(self.in_string) :: 2])
        if len(parts) % 2 == 0:
            self.in_string = not self.in_string
        self.depth += outside.count(b"{") + outside.count(b"[")
        self.depth -= outside.count(b"}") + outside.count(b"]")

    def _unescaped(self, data: bytes) -> bytes:
        """Return the piece without escaped quotes.

        A backslash at its end is kept for the next piece, which has the byte it
        escapes.
        """
        self._half_escape = b""
        if b"\\" not in data:
            return data
        if (len(data) - len(data.rstrip(b"\\"))) % 2:
            self._half_escape, data = b"\\", data[:-1]
        return data.replace(b"\\\\", b"").replace(b'\\"', b"")
