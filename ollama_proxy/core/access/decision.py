"""Hold what is decided about a request by its key: that it is refused, and why."""

from dataclasses import dataclass
from enum import StrEnum


class RefusalReason(StrEnum):
    """Names why a key, or the lack of one, is refused.

    ``KEY``: there is none, or it is not valid. ``RIGHT``: it may not do that. ``BODY``:
    what it asks for can't be read from the body. The others name a limit of the key.
    """

    KEY = "key"
    RIGHT = "right"
    BODY = "body"
    RATE = "rate"
    PARALLEL = "parallel"
    TOKENS = "tokens"
    MONEY = "money"


@dataclass(frozen=True, slots=True)
class KeyRefusal:
    """Holds why a request is refused, for its answer.

    ``message``: a clause without full stop. ``retry_after``: seconds until it is worth
    asking again; None: no wait helps. ``resets_at``: when the limit is free again, in
    seconds since 1970.
    """

    status: int
    reason: RefusalReason
    message: str
    retry_after: float | None = None
    resets_at: float | None = None
