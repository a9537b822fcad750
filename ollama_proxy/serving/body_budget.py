"""Limit how much of the bodies of requests may be in memory."""

SMALL_BODY = 256 * 1024
"""Bytes up to which a body is kept although no decision needs it."""

HELD_BODY = 32 * 1024 * 1024
"""Bytes up to which a body is kept while its request waits for an instance."""


class BodyBudget:
    """Limits the bytes of bodies in memory for requests that wait."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def take(self, size: int) -> bool:
        """Take ``size`` bytes; False if they are not left."""
        if self.taken + size > self.limit:
            return False
        self.taken += size
        return True

    def give_back(self, size: int) -> None:
        """Give bytes back."""
        self.taken -= size
