"""Tell which bodies are compressed, and decompress responses to our own requests.

Relayed bodies stay unchanged. A response that the proxy itself reads or shares is
requested uncompressed (`CLEAR`); some gateways compress it all the same.
"""

import zlib
from collections.abc import Iterator, Mapping

from multidict import CIMultiDict, CIMultiDictProxy

Headers = CIMultiDict[str] | CIMultiDictProxy[str]

CLEAR: Mapping[str, str] = {"Accept-Encoding": "identity"}
"""The header that asks for a body that is not compressed (RFC 9110 §12.5.3)."""

_UNPACKED_AT_ONCE = 1024 * 1024
_GZIP = frozenset({"gzip", "x-gzip"})
_ZLIB_METHOD = 8
_OF_ONE_BODY = (
    "Accept-Ranges",
    "Content-Digest",
    "Content-Encoding",
    "Content-Length",
    "Content-MD5",
    "Content-Range",
    "Digest",
    "ETag",
    "Last-Modified",
    "Repr-Digest",
)


class UnreadableBodyError(Exception):
    """Reports a body compressed in a way that can't be unpacked here; says how."""


def encoding_of(headers: Headers) -> str:
    """Return how a body is compressed, as in ``gzip``; "" if it is not."""
    listed = ",".join(headers.getall("Content-Encoding", ())).lower().split(",")
    names = [name.strip() for name in listed]
    return ", ".join(name for name in names if name not in {"", "identity"})


def without_body_facts(headers: Headers) -> CIMultiDict[str]:
    """Return headers without those that describe one particular body.

    A rewritten body has another length, digest and ETag.
    """
    kept = CIMultiDict(headers)
    for name in _OF_ONE_BODY:
        kept.popall(name, None)
    return kept


class Unpacker:
    """Unpacks one body, piece by piece, never much more at once than was packed."""

    def __init__(self, encoding: str) -> None:
        if encoding not in _GZIP | {"deflate"}:
            raise UnreadableBodyError(
                f"the answer is compressed ({encoding}) although it was asked for in"
                " the clear; have the gateway before the instance compress nothing"
            )
        self._is_gzip = encoding in _GZIP
        self._unpacking: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what a piece holds; raises `UnreadableBodyError` if it is broken."""
        if self._unpacking is None and data:
            self._unpacking = zlib.decompressobj(self._window(data[0]))
        while self._unpacking is not None and data and not self._unpacking.eof:
            try:
                yield self._unpacking.decompress(data, _UNPACKED_AT_ONCE)
            except zlib.error as error:
                raise UnreadableBodyError(f"it can't be unpacked: {error}") from error
            data = self._unpacking.unconsumed_tail

    def _window(self, first: int) -> int:
        """Return zlib's word for the format; some servers send deflate bare."""
        if self._is_gzip:
            return 16 + zlib.MAX_WBITS
        is_bare = first & 0xF != _ZLIB_METHOD
        return -zlib.MAX_WBITS if is_bare else zlib.MAX_WBITS

    def end(self) -> None:
        """Raise `UnreadableBodyError` if the body was cut in its middle."""
        if self._unpacking is not None and not self._unpacking.eof:
            raise UnreadableBodyError("it ends in its middle")
