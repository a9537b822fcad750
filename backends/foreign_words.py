"""Summarise the output of a foreign server or program in one sentence.

A gateway sends a page, a program its log, colours or a traceback. None of it is
repeated except what a person can use, on one line.
"""

import errno
import re
import socket
import ssl

_SHOWN = 200
_CAUSES = 8
_DEPTH = 3
_NO_WAY = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_KEYS = ("error", "message", "detail", "reason", "title", "msg", "description")
_COLOUR = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)")
_PAGE = re.compile(
    r"<(?:!doctype|\?xml|html|head|body|title|h1|center|div|p|script)\b", re.IGNORECASE
)
_TITLE = re.compile(r"<(title|h1)[^>]*>([^<]{1,80})</\1>", re.IGNORECASE)
_TRACE = re.compile(r"Traceback \(most recent call last\):?")
_STAMP = re.compile(
    r"^\[?\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?\]?\s*"
    r"(?:\[?(?:TRACE|DEBUG|INFO|WARN(?:ING)?|ERROR|FATAL|CRITICAL)\]?:?\s*)?",
    re.IGNORECASE,
)


def words_of(raw: bytes, body: object = None) -> str:
    """Return the message in an answer: JSON's own error, or a page's title."""
    if body is not None:
        return plain_words(_told(body, _DEPTH) or "") or "no word why"
    return plain_words(raw.decode("utf-8", "replace")) or "no word why"


def plain_words(text: str) -> str:
    """Return a text's beginning on one line, without pages, logs and tracebacks."""
    text = _COLOUR.sub("", text)
    if (page := _PAGE.search(text)) is not None:
        title = _TITLE.search(text)
        named = f" ({' '.join(title[2].split())!r})" if title is not None else ""
        text = f"{text[: page.start()]} a page of HTML{named}, which no API sends"
    if (trace := _TRACE.search(text)) is not None:
        last = text[trace.end() :].strip().rpartition("\n")[2]
        text = f"{text[: trace.start()]} {last}"
    lines = (_STAMP.sub("", line.strip()) for line in text.splitlines())
    return " ".join(" ".join(lines).split())[:_SHOWN]


def why_unanswered(error: BaseException) -> str:
    """Return why a call has no answer, in words, by the system's own error."""
    seen: BaseException | None = error
    for _ in range(_CAUSES):
        if seen is None:
            break
        if isinstance(seen, socket.gaierror):
            return "its name is not known"
        reason = getattr(seen, "reason", None)
        if isinstance(seen, ssl.SSLError) and isinstance(reason, str):
            return f"TLS failed: {reason.replace('_', ' ').lower()}"
        if isinstance(seen, OSError) and (said := _unreached(seen)):
            return said
        if type(seen).__name__ in {"JSONDecodeError", "DecodeError"}:
            return "what it answers can't be read"
        inner = getattr(seen, "os_error", None)
        seen = inner or seen.__cause__ or seen.__context__
    return "the connection ended before the whole answer was there"


def _unreached(error: OSError) -> str | None:
    """Return why the system reaches nothing there; None if it does not say."""
    if isinstance(error, ConnectionRefusedError):
        return "it refuses connections"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if error.errno in _NO_WAY:
        return "no route of this machine's network leads to it"
    return None


def _told(body: object, depth: int) -> str | None:
    """Return the first error message in an answer, at any depth."""
    if isinstance(body, list):
        return next((found for one in body[:4] if (found := _told(one, depth))), None)
    if not isinstance(body, dict) or depth == 0:
        return None
    for key in (*_KEYS, "errors"):
        value = body.get(key)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, dict | list) and (found := _told(value, depth - 1)):
            return found
    return None
