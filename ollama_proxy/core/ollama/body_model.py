"""Find the model at the beginning of a body whose rest may not have arrived yet. Pure.

`request_fields` reads complete bodies; this is for longer bodies and for forms.
"""

import re
from collections.abc import Collection
from typing import Final

import msgspec

from ollama_proxy.core.ollama.go_json import folded

MOST_STEPS: Final = 100_000
"""Brackets and texts that are passed over at most: some 50 ms of processor time."""

NO_TEXT: Final = object()
"""Stands for a value that is no text, or none that could be a name."""

_STRING = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_GAP = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb"[^,}\]\s\"{\[]++")
_MARK = re.compile(rb'["{}\[\]]')
_LONGEST_NAME = 4096  # Ollama's own limit is 592
_LONGEST_HEAD = 16 * 1024
_FORM_NAME = re.compile(
    rb"^content-disposition:[^\r\n]*;\s*name=(?:\"model\"|model)\s*(?:;|$)",
    re.IGNORECASE | re.MULTILINE,
)


class UnseenError(Exception):
    """Reports that what is here of a body was not seen to its end, or is no object."""

    def __init__(self) -> None:
        super().__init__("it is no JSON object, or has too many parts")


def model_in_json(head: bytes) -> str | None:
    """Return ``model`` of the object that a body begins with; None if not seen.

    The first one counts, because the rest of the body may not have arrived. Fields
    before it are skipped without being built.
    """
    try:
        return _Scan(head).model()
    except UnseenError:
        return None


def texts_in_json(body: bytes, wanted: Collection[str]) -> list[object]:
    """Return every value of the wanted members of an object, in whatever case.

    ``null`` counts as absent, and a value that is no text is `NO_TEXT`. The whole
    object is looked at, which may be followed by anything. Raises `UnseenError`.
    """
    return _Scan(body).texts(wanted)


class _Scan:
    """Passes over the members of an object until it finds the model."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._at = 0
        self._steps = 0

    def model(self) -> str | None:
        self._expect(b"{")
        while self._peek() != b"}":
            key = self._text(self._string())
            self._expect(b":")
            if key is not None and key.lower() == "model" and self._peek() == b'"':
                return self._text(self._string())
            self._skip_value()
            if self._peek() == b",":
                self._at += 1
        return None

    def texts(self, wanted: Collection[str]) -> list[object]:
        found: list[object] = []
        self._expect(b"{")
        while self._peek() != b"}":
            key = self._text(self._string())
            self._expect(b":")
            begun = self._peek()
            at = self._at
            if key is None or folded(key) not in wanted:
                self._skip_value()
            elif begun == b'"':
                text = self._text(self._string())
                found.append(NO_TEXT if text is None else text)
            else:
                self._skip_value()
                if self._head[at : self._at] != b"null":
                    found.append(NO_TEXT)
            if self._peek() == b",":
                self._at += 1
        return found

    def _peek(self) -> bytes:
        """Return the next byte that is no space."""
        gap = _GAP.match(self._head, self._at)
        self._at = gap.end() if gap is not None else self._at
        if self._at >= len(self._head):
            raise UnseenError
        return self._head[self._at : self._at + 1]

    def _expect(self, mark: bytes) -> None:
        if self._peek() != mark:
            raise UnseenError
        self._at += 1

    def _string(self) -> bytes:
        """Pass over a text and return it with its quotes."""
        self._peek()
        found = _STRING.match(self._head, self._at)
        self._step()
        if found is None:
            raise UnseenError
        self._at = found.end()
        return found[0]

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise UnseenError

    @staticmethod
    def _text(string: bytes) -> str | None:
        """Return what a text says; None if it is too long to be a name."""
        if len(string) > _LONGEST_NAME:
            return None
        try:
            return str(msgspec.json.decode(string, type=str))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _skip_value(self) -> None:
        begun = self._peek()
        if begun == b'"':
            self._string()
        elif begun in {b"{", b"["}:
            self._skip_nested()
        else:
            found = _SCALAR.match(self._head, self._at)
            if found is None or found.end() == len(self._head):
                raise UnseenError
            self._at = found.end()

    def _skip_nested(self) -> None:
        """Pass over an object or a list, whatever is in it."""
        depth = 0
        while True:
            found = _MARK.search(self._head, self._at)
            if found is None:
                raise UnseenError
            self._at = found.start()
            if found[0] == b'"':
                self._string()
                continue
            self._step()
            self._at += 1
            depth += 1 if found[0] in {b"{", b"["} else -1
            if depth == 0:
                return


def model_in_form(head: bytes) -> str | None:
    """Return the field ``model`` of a ``multipart/form-data`` body; None if not seen.

    The body's first line gives the boundary.
    """
    boundary = head.partition(b"\r\n")[0].rstrip(b" \t")
    if not boundary.startswith(b"--") or not 2 < len(boundary) <= 72:  # noqa: PLR2004 - RFC 2046 §5.1.1
        return None
    delimiter = b"\r\n" + boundary
    at = len(boundary)
    for _ in range(MOST_STEPS):
        fields_end = head.find(b"\r\n\r\n", at, at + _LONGEST_HEAD)
        if fields_end < 0:
            return None
        end = head.find(delimiter, fields_end)
        if end < 0:
            return None
        if _FORM_NAME.search(head[at:fields_end].replace(b"\r\n", b"\n")):
            value = head[fields_end + 4 : end]
            return value[:_LONGEST_NAME].decode("utf-8", "replace")
        at = end + len(delimiter)
        if head.startswith(b"--", at):
            return None
    return None
