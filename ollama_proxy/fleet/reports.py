"""Make long texts of backends fit to be kept: without secrets, and bounded. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pydantic import BaseModel, SecretStr

from ollama_proxy.core.lifecycle.events import Failed, Gone, Lost

LONGEST = 8 * 1024
"""How many bytes of a report are kept, from its end, where the last failure is."""

_READ = 16 * LONGEST
_SENTENCE = 1000
_MASK = "***"
_SHORTEST_SECRET = 8
_NAMES = r"token|secret|passw(?:or)?d|passphrase|api[-_]?key|private[-_]?key|credential"
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
_PATTERNS = (
    re.compile(
        r"()-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [^-]{0,40}-----|\Z)",
        re.DOTALL,
    ),
    re.compile(r"(\b(?:bearer|basic|flyv1)\s{1,8})[^\s\"',;]+", re.IGNORECASE),
    re.compile(
        r"(\bauthorization[\"']?\s{0,8}[:=]\s{0,8}[\"']?)[^\r\n\"']+",
        re.IGNORECASE,
    ),
    re.compile(
        rf"((?:{_NAMES})[\w.-]{{0,40}}[\"']?\s{{0,8}}[:=]\s{{0,8}}[\"']?)[^\s\"',;&]+",
        re.IGNORECASE,
    ),
    re.compile(r"(\w://)[^\s/@]{1,500}(?=@)"),
    re.compile(
        r"([?&](?:sig|signature|x-amz-[a-z-]{1,40}|key)=)[^\s&\"']+", re.IGNORECASE
    ),
    re.compile(r"()\beyJ[\w-]{1,1000}\.[\w-]{1,1000}\.[\w-]*"),
    re.compile(r"()\b(?:EXO[0-9a-f]{24,}|fo1_[\w-]+|hf_\w{8,})"),
    re.compile(r"()\b(?:gh[pousr]|sk|xox[abp])[-_][\w-]{16,}"),
)
"""Text that looks like a secret, in any program's output; the first group stays.

Every repetition before the match is bounded: otherwise a text made for it would take
hours.
"""


def without(secrets: Iterable[str], text: str) -> str:
    """Return a text in which none of ``secrets`` stands, but for very short ones."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, _MASK)
    return text


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without ``secrets`` and without what looks like one."""
    text = without(secrets, text)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{_MASK}", text)
    return text


def bounded(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the masked end of a report, at most `LONGEST` bytes of UTF-8."""
    whole = masked(text[-_READ:].replace("\0", ""), secrets)
    data = whole.encode("utf-8", "replace")
    if len(data) <= LONGEST and len(text) <= _READ:
        return data.decode()
    mark = "…"
    return mark + data[-(LONGEST - len(mark.encode())) :].decode("utf-8", "ignore")


def cleaned(
    event: Failed | Gone | Lost, secrets: Iterable[str]
) -> Failed | Gone | Lost:
    """Return the end of an instance, cleaned for people, log and journal."""
    report = bounded(event.report, secrets)
    if isinstance(event, Failed):
        message = _sentence(event.fault.message, secrets)
        return replace(
            event, fault=replace(event.fault, message=message), report=report
        )
    return replace(event, message=_sentence(event.message, secrets), report=report)


def _sentence(message: str, secrets: Iterable[str]) -> str:
    """Return a message on one line, cut at the length of a sentence.

    Messages of a cloud are included: they may name a token without showing it.
    """
    words = " ".join(without(secrets, message[:_READ]).split())
    return words if len(words) <= _SENTENCE else words[: _SENTENCE - 1] + "…"


def secrets_in(value: object) -> set[str]:
    """Return every secret of some settings: by its type, or by its name."""
    match value:
        case SecretStr():
            return {value.get_secret_value()}
        case BaseModel():
            return secrets_in(dict(value))
        case Mapping():
            found: set[str] = set()
            for name, one in value.items():
                found |= secrets_in(one)
                if isinstance(one, str) and _SECRET_NAME.search(str(name)):
                    found.add(one)
            return found
        case list() | tuple():
            return set().union(*(secrets_in(one) for one in value))
    return set()
