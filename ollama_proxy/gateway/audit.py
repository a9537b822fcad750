"""Write down each use of an administrative right: in the store, and in the log."""

from typing import Final

import structlog

from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.audit import AuditLine, caller_words
from ollama_proxy.core.access.keys import Caller
from ollama_proxy.store.ports import AuditStore

_LONGEST: Final = 500
"""Characters of a target or a detail; a client may send more."""


class Audit:
    """Makes the lines of the audit, and logs them."""

    def __init__(self, store: AuditStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._log = structlog.get_logger()

    def line(
        self, caller: Caller, action: str, target: str = "", detail: str = ""
    ) -> AuditLine:
        """Return a line of now, for `KeyStore` to write with the key that it is on."""
        return AuditLine(
            self._clock.wall(),
            caller_words(caller),
            caller.address,
            action,
            target[:_LONGEST],
            detail[:_LONGEST],
        )

    def newest(self, limit: int) -> list[AuditLine]:
        """Return the newest lines, newest first. Raises `StoreError`."""
        return self._store.audit(limit)

    def note(
        self, caller: Caller, action: str, target: str = "", detail: str = ""
    ) -> None:
        """Write and log a line; on a full disk only log it.

        An order to stop what costs money is carried out although nothing can be stored.
        """
        line = self.line(caller, action, target, detail)
        try:
            self._store.add_audit(line)
        except StoreError as error:
            self._log.warning(log.STORE_FAILED, reason=str(error))
        self.tell(line)

    def tell(self, line: AuditLine) -> None:
        """Log a line that is stored."""
        told = {
            "caller": line.caller,
            "address": line.address,
            "target": line.target,
            "detail": line.detail,
        }
        used = {name: value for name, value in told.items() if value}
        self._log.info(log.ORDER_GIVEN, action=line.action, **used)
