"""Frame chunks as they are on the wire: length, line break, bytes, line break."""

import functools


@functools.lru_cache(maxsize=4096)
def length_line(size: int) -> bytes:
    """Return the length line that ``size`` bytes begin with if they are one chunk.

    For each size there is at most one such line, so a comparison replaces parsing. If
    no chunk has that total length, return one NUL byte, which never matches.
    """
    for digits in range(1, 9):
        length = size - digits - 4
        if length > 0 and len(f"{length:x}") == digits:
            return b"%x\r\n" % length
    return b"\0"


def framed(data: bytes) -> bytes:
    """Return a chunk with its length before it (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
