"""Make the text of a key, and tell which key a text is of.

A text is ``op_<8 hex letters>_<32 random bytes, url-safe>``: scanners for secrets find
it by its prefix, the letters name the key, and only a digest of it is stored. 256
random bits need no slow digest: there is nothing to guess.
"""

import base64
import hashlib
import re
from typing import Final

from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.core.nodes.node_keys import PREFIXES

KEY_PREFIX: Final = "op_"
ORDER_PREFIX: Final = "opt_"
"""The beginning of the order token, which the proxy's own commands send."""

OUR_PREFIXES: Final = (KEY_PREFIX, ORDER_PREFIX, *PREFIXES)
SECRET_BYTES: Final = 32
ID_LETTERS: Final = 8

ID_IN_TEXT: Final = slice(len(KEY_PREFIX), len(KEY_PREFIX) + ID_LETTERS)
"""Where the id of a key stands in its text; whether it is that key, a digest tells."""

_TEXT = re.compile(r"op_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_WITHIN = re.compile(r"\b(op[tnj]?_)[A-Za-z0-9_-]+")


def key_text(key_id: KeyId, secret: bytes) -> str:
    """Return the text of a key, from its id and 32 random bytes."""
    encoded = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    return f"{KEY_PREFIX}{key_id}_{encoded}"


def key_id_of(text: str) -> KeyId | None:
    """Return which key a text claims to be; None if no key is written like that."""
    found = _TEXT.fullmatch(text)
    return None if found is None else KeyId(found[1])


def hide_keys(text: str) -> str:
    """Return a client's text with ``…`` in place of what looks like a key of ours."""
    return _WITHIN.sub(r"\1…", text) if "op" in text else text


def digest_of(text: str) -> bytes:
    """Return what is held of a secret text: its SHA-256, 32 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
