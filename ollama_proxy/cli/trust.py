"""Decide which certificate a command trusts: its own proxy's, or any as usual."""

import ssl
from pathlib import Path

from ollama_proxy.base.pinned_tls import first_certificate, pinned
from ollama_proxy.base.serving_address import Running

_MAX_BYTES = 1024 * 1024


def trusted_by(
    url: str, file: Path | None, running: Running | None
) -> ssl.SSLContext | None:
    """Return how the certificate at ``url`` is checked; None: as this machine has it.

    ``file``: the certificate of the settings. ``running``: the proxy of the state
    folder, which may show the one before or after that. If either is known, they alone
    are trusted; a proxy elsewhere is checked as any HTTPS server is.
    """
    if not url.startswith("https://"):
        return None
    known = [of_file(file)] if file is not None else []
    if running is not None and running.url == url:
        known.append(running.certificate)
    known = list(dict.fromkeys(pem for pem in known if pem))
    try:
        return pinned(known) if known else None
    except ssl.SSLError:  # a damaged file: nothing of it is trusted
        return None


def of_file(path: Path) -> str:
    """Return the first certificate of a PEM file; "" if it has none."""
    try:
        with path.open("rb") as file:
            return first_certificate(file.read(_MAX_BYTES).decode("utf-8", "replace"))
    except (OSError, ValueError):
        return ""
