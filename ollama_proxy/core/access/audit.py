"""Hold a line of the audit: which administrative right was used, by whom, and when."""

from typing import Final

import msgspec

from ollama_proxy.core.access.keys import Caller

ORDER_TOKEN: Final = "the order token"  # noqa: S105 - its name, not its value
"""Names the caller that has the order token, in the audit."""


class AuditLine(msgspec.Struct, frozen=True):
    """Holds one change or order; ``at`` is a date in epoch seconds.

    ``caller``: name of the key, or `ORDER_TOKEN`; "" if none was needed. ``action``: as
    its command is called, such as ``key add``. ``target``: what it changed, by name.
    """

    at: float
    caller: str
    address: str
    action: str
    target: str = ""
    detail: str = ""


def caller_words(caller: Caller) -> str:
    """Return how the audit names a caller."""
    if caller.key is None and caller.is_admin:
        return ORDER_TOKEN
    return caller.name
