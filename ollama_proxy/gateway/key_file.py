"""Read the file of keys that a person or an orchestrator writes: TOML, a table a key.

The file is refused as a whole if anything in it is wrong, so that half a key is never
taken. No text of a key is quoted, whatever is wrong with it.
"""

import hashlib
import math
import re
import stat
import string
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ollama_proxy.base.errors import ProxyError
from ollama_proxy.base.regular_file import read_regular
from ollama_proxy.core.access.keys import Key, KeyId, Rights
from ollama_proxy.gateway.key_text import ID_LETTERS, digest_of, key_id_of
from ollama_proxy.gateway.key_words import (
    Dates,
    KeyTerms,
    is_like_key,
    name_fault,
    read_terms,
)
from ollama_proxy.gateway.keyring import LONGEST_TEXT
from ollama_proxy.gateway.right_words import shown

KEYS_FILE: Final = "OLLAMA_PROXY_KEYS_FILE"
MOST_BYTES: Final = 1024 * 1024
MOST_KEYS: Final = 5000
LEAST_BITS: Final = 128

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_VISIBLE = re.compile(r"[!-~]+")
_LEAST_KINDS = 8
_TOLD = 5
"""How many faults one sentence names."""

_ALPHABETS = (string.digits, string.ascii_lowercase, string.ascii_uppercase)
_OTHERS = 33
"""How many visible characters are neither digits nor letters."""


class KeyFileError(ProxyError):
    """Reports that the file of keys can't be used; the message says what to change."""

    reason = "keys_file"


@dataclass(frozen=True, slots=True)
class FileKeys:
    """Holds the keys of a file; ``warning``: what is unsafe about it, or ""."""

    keys: tuple[Key, ...]
    warning: str = ""


def read_key_file(path: Path, dates: Dates) -> FileKeys:
    """Return the keys of a file. Raises `KeyFileError`."""
    raw, mode = _read(path)
    try:
        content = tomllib.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "no UTF-8"
        raise _fault(path, f"it is not TOML ({why})") from None
    tables = content.get("keys", {})
    if not isinstance(tables, dict) or set(content) - {"keys"}:
        raise _fault(path, "it has other tables than [keys.NAME]; write those alone")
    if not tables:
        raise _fault(path, 'it has no key; write [keys.NAME] and key = "…" below')
    if len(tables) > MOST_KEYS:
        raise _fault(path, f"it has {len(tables)} keys; write at most {MOST_KEYS}")
    keys = _keys(path, tables, dates)
    has_texts = any("key" in table for table in tables.values())
    return FileKeys(keys, _warning(path, mode) if has_texts else "")


def _keys(path: Path, tables: Mapping[str, Any], dates: Dates) -> tuple[Key, ...]:
    faults: list[str] = []
    found: dict[bytes, Key] = {}
    ids: set[KeyId] = set()
    for name, table in tables.items():
        key, wrong = _key(name, table, dates, ids)
        faults += wrong
        if key is None:
            continue
        ids.add(key.id)
        if (same := found.setdefault(key.digest, key)) is not key:
            faults.append(f"[keys.{name}] has the text of [keys.{same.name}]")
    if faults:
        more = f"; and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
        raise _fault(path, "; ".join(faults[:_TOLD]) + more)
    return tuple(found.values())


def _key(
    name: str, table: object, dates: Dates, ids: Iterable[KeyId]
) -> tuple[Key | None, list[str]]:
    """Return the key of one table, or None and what is wrong with it."""
    if (wrong := name_fault(name)) is not None:
        return None, [wrong]
    head = f"[keys.{name}]"
    if not isinstance(table, dict):
        return None, [f'{head} is no table; write {head} and key = "…" below']
    digest, faults = _digest(table)
    words = {word: value for word, value in table.items() if word not in _OWN_WORDS}
    terms, wrongs = read_terms(words, KeyTerms(Rights()), dates)
    faults += wrongs
    if not isinstance(is_disabled := table.get("disabled", False), bool):
        faults.append(f"disabled: {shown(is_disabled)} is neither true nor false")
    if faults or digest is None:
        return None, [f"{head} {fault}" for fault in faults]
    key = Key(
        _free_id(name, ids),
        name,
        digest,
        rights=terms.rights,
        expires_at=terms.expires_at,
        is_disabled=bool(is_disabled),
    )
    return key, []


def _digest(table: Mapping[str, Any]) -> tuple[bytes | None, list[str]]:
    """Return the digest of a table's key, or what is wrong with its text."""
    text, digest = table.get("key"), table.get("sha256")
    if (text is None) == (digest is None):
        return None, ['needs one of key = "…" and sha256 = "…"']
    if text is not None:
        wrong = text_fault(text)
        return (digest_of(text), []) if wrong is None else (None, [f"key: {wrong}"])
    if not isinstance(digest, str) or _SHA256.fullmatch(digest) is None:
        how = "the 64 digits of `printf %s KEY | sha256sum`"
        return None, [f"sha256: it is no SHA-256; write {how}"]
    return bytes.fromhex(digest), []


def text_fault(text: object) -> str | None:
    """Return why a text that a person chose can't be a key; None if it can.

    The text is not quoted. 128 random bits can't be guessed; a shorter key is refused,
    since a quick digest is all that is stored of it.
    """
    if not isinstance(text, str) or _VISIBLE.fullmatch(text) is None:
        return "it has characters that no header carries; write letters and digits"
    if len(text) > LONGEST_TEXT:
        return f"it is longer than {LONGEST_TEXT} characters"
    if is_like_key(text):
        if key_id_of(text) is not None:
            return None
        return "it begins like a key of ours and is none; copy it again"
    if _bits(text) < LEAST_BITS or len(set(text)) < _LEAST_KINDS:
        return (
            f"it can be guessed: it has less than {LEAST_BITS} bits; write what"
            " `openssl rand -hex 16` prints"
        )
    return None


def _bits(text: str) -> float:
    """Return how many bits a random text of this length and alphabet has."""
    if re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", text):
        return 4.0 * len(text)
    kinds = set(text)
    size = sum(len(letters) for letters in _ALPHABETS if kinds & set(letters))
    if kinds - set("".join(_ALPHABETS)):
        size += _OTHERS
    return len(text) * math.log2(max(size, 1))


def _free_id(name: str, ids: Iterable[KeyId]) -> KeyId:
    """Return an id for a key by its name, so that it is the same with another text."""
    number = 0
    while True:
        digest = hashlib.sha256(f"{number} {name}".encode()).hexdigest()
        if (key_id := KeyId(digest[:ID_LETTERS])) not in ids:
            return key_id
        number += 1


def _read(path: Path) -> tuple[bytes, int]:
    """Return the bytes and the mode of a file that only its owner may write."""
    try:
        raw, mode = read_regular(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise _fault(path, f"it can't be read ({why})") from None
    if raw is None:
        raise _fault(path, "it is no regular file")
    if mode & _OTHERS_WRITE:
        raise _fault(
            path,
            f"others may write it (mode {stat.S_IMODE(mode):04o}); `chmod go-w` it",
        )
    if len(raw) > MOST_BYTES:
        raise _fault(path, "it has more than 1 MiB")
    if not raw.strip():
        raise _fault(path, 'it is empty; write [keys.NAME] and key = "…" below')
    return raw, mode


def _warning(path: Path, mode: int) -> str:
    if not mode & stat.S_IROTH:
        return ""
    return (
        f"{_named(path)} has keys in plain text that every user of this machine can"
        f" read (mode {stat.S_IMODE(mode):04o}); `chmod 600` it, or write sha256 = …"
    )


def _fault(path: Path, what: str) -> KeyFileError:
    return KeyFileError(f"{_named(path)} can't be used: {what}")


def _named(path: Path) -> str:
    return f"the file {str(path)!r} of {KEYS_FILE}"


_OWN_WORDS: Final = frozenset({"key", "sha256", "disabled"})
"""Words of a table besides those for the terms of a key."""
