"""Prepare the transport of a client's connection, if it is one on TLS."""

import asyncio
from typing import Final

WRITE_AHEAD: Final = 64 * 1024
"""How many bytes may wait for a slow client, as without TLS; asyncio's is 512 KiB."""


def prepare_tls(transport: asyncio.Transport) -> bool:
    """Bound what a connection on TLS buffers; False for one without TLS.

    On TLS a connection can't be half-closed, by either side: asyncio closes it.
    """
    if transport.get_extra_info("sslcontext") is None:
        return False
    transport.set_write_buffer_limits(WRITE_AHEAD)
    return True
