"""Choose how long to wait for a server's sign of life."""


class ProbeTimeout:
    """Scales a time-out to measured answer times, as TCP does (RFC 6298).

    The smoothed answer time plus four times its variation, doubled after each miss,
    between ``floor_s`` and ``ceiling_s``.
    """

    def __init__(self, *, floor_s: float = 2.0, ceiling_s: float = 30.0) -> None:
        self._floor_s = floor_s
        self._ceiling_s = ceiling_s
        self._smoothed_s: float | None = None
        self._variation_s = 0.0
        self._misses = 0

    @property
    def seconds(self) -> float:
        """Return how long to wait for the next answer."""
        measured_s = (self._smoothed_s or 0.0) + 4.0 * self._variation_s
        scaled_s = max(measured_s, self._floor_s) * 2.0 ** min(self._misses, 8)
        return min(self._ceiling_s, scaled_s)

    def answered(self, took_s: float) -> None:
        """Take in how long an answer took."""
        self._misses = 0
        if self._smoothed_s is None:
            self._smoothed_s, self._variation_s = took_s, took_s / 2.0
            return
        deviation_s = abs(self._smoothed_s - took_s)
        self._variation_s = 0.75 * self._variation_s + 0.25 * deviation_s
        self._smoothed_s = 0.875 * self._smoothed_s + 0.125 * took_s

    def missed(self) -> None:
        """Count a time-out: double the limit."""
        self._misses += 1
