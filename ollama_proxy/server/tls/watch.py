"""Read the certificate again when its files are renewed; keep the last good one."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final

import structlog

from ollama_proxy.base import log
from ollama_proxy.core.access.days import utc_time
from ollama_proxy.server.tls.certificate import (
    CertificateError,
    CertificateFiles,
    LoadedCertificate,
    expiry_words,
    load,
)

LOOK_EVERY_S: Final = 2.0


class ServerCertificate:
    """Holds the certificate that handshakes get, and what is wrong with its files.

    ``wall`` returns the date in epoch seconds. ``on_renewed`` is called with each new
    certificate. Raises `CertificateError` if the files can't be used now.
    """

    def __init__(
        self,
        files: CertificateFiles,
        wall: Callable[[], float],
        on_renewed: Callable[[LoadedCertificate], None] = lambda _: None,
    ) -> None:
        self._files = files
        self._wall = wall
        self.on_renewed = on_renewed
        self._stamp = files.stamp()
        self.loaded = load(files, wall())
        self._fault = ""
        self._suspicion = ""
        self._told = ""

    def context(self) -> ssl.SSLContext:
        """Return what a handshake of this moment shows."""
        return self.loaded.context

    @property
    def problem(self) -> str | None:
        """Return a sentence on what is wrong with it or its files; None if nothing."""
        return self._fault or expiry_words(self.loaded.ends_at, self._wall())

    def body(self) -> dict[str, Any]:
        """Return what ``/status`` says about it."""
        return {"expires_at": utc_time(self.loaded.ends_at), "problem": self.problem}

    async def run(self, every_s: float = LOOK_EVERY_S) -> None:
        """Look at the files again and again, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self) -> None:
        """Read the files again if they have changed, or could not be used."""
        # A network file system may take long: not in the event loop.
        stamp = await asyncio.to_thread(self._files.stamp)
        if stamp != self._stamp or self._suspicion:
            await self._reload(stamp)
        problem = self.problem or ""
        if problem and problem != self._told:
            structlog.get_logger().warning(log.CERTIFICATE_UNUSABLE, reason=problem)
        self._told = problem

    async def _reload(self, stamp: tuple[tuple[int, ...], ...]) -> None:
        try:
            loaded = await asyncio.to_thread(load, self._files, self._wall())
        except CertificateError as error:
            self._note_fault(str(error))
            return
        self._stamp, self._fault, self._suspicion = stamp, "", ""
        is_new, self.loaded = loaded.own != self.loaded.own, loaded
        if is_new:
            structlog.get_logger().info(log.CERTIFICATE_RENEWED, **self.body())
            self.on_renewed(loaded)

    def _note_fault(self, fault: str) -> None:
        """Believe a fault that two looks in a row see.

        Programs renew one file after the other: in between, they are not a pair.
        """
        is_seen_again, self._suspicion = fault == self._suspicion, fault
        if is_seen_again:
            self._fault = f"{fault}; until then the last good one is used"
