"""Hold the order token: by it the proxy's own commands prove that they may give orders.

It stands in the state folder, where only the proxy's user can read it. Each start makes
another. An address proves nothing: a web server on the same machine relays strangers.
"""

import hmac
import secrets
from pathlib import Path
from typing import Final

from ollama_proxy.base.private_file import write_private
from ollama_proxy.gateway.key_text import ORDER_PREFIX

TOKEN_FILE: Final = "order-token"  # noqa: S105 - a file's name

_SECRET_BYTES = 32
_LONGEST = 200


class OrderToken:
    """Tells the order token from any other text; it can't be shown."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def is_it(self, text: str) -> bool:
        """Tell whether a text is the order token, in a time that tells nothing else."""
        given = text.encode("utf-8", "surrogateescape")
        return bool(self._text) and hmac.compare_digest(given, self._text)


def make_order_token(folder: Path) -> OrderToken:
    """Write a new order token into the state folder. Raises `OSError`.

    The file is replaced, never changed: a reader has the old token or the new one.
    """
    text = ORDER_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    write_private(folder / TOKEN_FILE, f"{text}\n".encode())
    return OrderToken(text)


def read_order_token(folder: Path) -> str:
    """Return the order token of the folder's proxy. Raises `OSError`; "" if it is bad.

    `PermissionError`: the proxy is another user's.
    """
    with (folder / TOKEN_FILE).open("rb") as file:
        text = file.read(_LONGEST).decode("ascii", "replace").strip()
    return text if text.startswith(ORDER_PREFIX) and text.isascii() else ""
