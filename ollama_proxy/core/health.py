"""Decide when a server counts as down, and when as back: probe by probe. Pure."""

from dataclasses import dataclass

_FAILED_PROBES = 3
_BACK_AFTER_S = 30.0


@dataclass(frozen=True, slots=True)
class Health:
    """Holds how often in a row a server has failed, and since when it is good.

    ``failing_since``: moment of the first of these failures. ``good_since``: moment of
    the first success after failures; None if it never failed.
    """

    failures: int = 0
    failing_since: float = 0.0
    good_since: float | None = None

    def good(self, now: float) -> "Health":
        """Return the health after a success at the moment ``now``."""
        if not self.failures:
            return self
        return Health(good_since=now)

    def failed(self, now: float) -> "Health":
        """Return the health after a failure."""
        since = self.failing_since if self.failures else now
        return Health(self.failures + 1, since)

    def doubtful(self, now: float) -> "Health":
        """Return the health after a failure with an excuse: it counts once at most."""
        return self if self.failures else self.failed(now)

    def is_down(self, now: float, *, over_s: float) -> bool:
        """Tell whether three probes in a row failed, in ``over_s`` seconds at least."""
        return self.failures >= _FAILED_PROBES and now - self.failing_since >= over_s

    def is_steady(self, now: float) -> bool:
        """Tell whether it has not failed for half a minute, or never has."""
        if self.failures:
            return False
        return self.good_since is None or now - self.good_since >= _BACK_AFTER_S
