"""Bound how long a request goes on after its client half-closed the connection.

Most such clients have left, and Go cancels the request of a client that has. But a
client that closed only its sending half may still read, so a response that needs no
waiting is sent, as Go's server does.
"""

MOMENT_S = 0.3
"""Limit of a refusal, before which a launch may be written to a slow disk."""

READ_S = 5.0
"""Limit of a read, for which nothing is generated."""


def patience_s(*, is_read: bool, has_begun: bool) -> float:
    """Return how long a request may go on, of which an answer ``has_begun`` or not."""
    if is_read:
        return READ_S
    return 0.0 if has_begun else MOMENT_S
