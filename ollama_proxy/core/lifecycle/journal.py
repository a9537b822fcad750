"""Hold a line of the journal: one change of an instance's state."""

import msgspec


class Transition(msgspec.Struct, frozen=True):
    """Holds a line of the journal; ``at`` is a date in epoch seconds.

    ``fault``: the cause, in a sentence; ``report``: details from the backend.
    """

    at: float
    slot: str
    launch_id: str | None
    before: str
    after: str
    event: str
    fault: str | None
    report: str | None = None
