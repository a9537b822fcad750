"""Read the text fields of a ``multipart/form-data`` body as every server does. Pure.

Servers differ on forms that are unusual: on text before the first part, on white space
or other line ends at a boundary, on escaped names, on values that are encoded
(``quoted-printable``). A form is read here only if there is one way to read it: what
programs send is.
"""

import re
from typing import Final

_TYPE = re.compile(
    r"multipart/form-data(?:;[ \t]*charset=[\w-]+)?;[ \t]*"
    r'boundary=(?:"([^"\\]{1,70})"|([0-9A-Za-z!#$%&\'*+\-.^_`|~]{1,70}))[ \t]*',
    re.IGNORECASE,
)
_DISPOSITION = re.compile(
    rb'form-data;[ \t]*name=(?:"([^"\\\r\n]*)"|([0-9A-Za-z_\-.]+))'
    rb"(?P<file>;[ \t]*filename\*?=[^\r\n]*)?[ \t]*",
    re.IGNORECASE,
)
_FIELD = re.compile(rb"([0-9A-Za-z\-]+):[ \t]*([^\r\n]*)")
_KNOWN: Final = frozenset({b"content-disposition", b"content-type", b"content-length"})
_ENCODING: Final = b"content-transfer-encoding"
_AS_IT_IS: Final = frozenset({b"7bit", b"8bit", b"binary"})
_LONGEST_HEAD: Final = 8 * 1024
_MOST_PARTS: Final = 1000
_LONGEST_TEXT: Final = 4096


class UnusualFormError(ValueError):
    """Reports a form that servers may read in several ways; says why."""


def form_texts(body: bytes, content_type: str, wanted: str) -> list[str]:
    """Return every field of a name. Raises `UnusualFormError`."""
    found = _TYPE.fullmatch(content_type.strip())
    if found is None:
        raise UnusualFormError("the Content-Type is not that of a plain form")
    delimiter = b"--" + (found[1] or found[2]).encode("utf-8", "replace")
    if not body.startswith(delimiter + b"\r\n"):
        raise UnusualFormError("the form does not begin with its boundary")
    if body.count(delimiter) != 1 + body.count(b"\r\n" + delimiter):
        raise UnusualFormError("its boundary stands within a line of the form")
    parts = body[len(delimiter) :].split(b"\r\n" + delimiter, _MOST_PARTS)
    if len(parts) > _MOST_PARTS:
        raise UnusualFormError(f"the form has over {_MOST_PARTS} parts")
    if parts.pop().rstrip(b"\r\n") != b"--":
        raise UnusualFormError("the form does not end with its boundary")
    texts = (_text_of(part, wanted) for part in parts)
    return [text for text in texts if text is not None]


def _text_of(part: bytes, wanted: str) -> str | None:
    """Return the text of a part, if it has the wanted name."""
    end = part.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
    if not part.startswith(b"\r\n") or end < 0:
        raise UnusualFormError("a part of the form has no head of its own")
    name = _name_of(part[2:end])
    if name.lower() != wanted:
        return None
    value = part[end + 4 :]
    if len(value) > _LONGEST_TEXT:
        raise UnusualFormError(f"the field {wanted!r} is longer than a name")
    return value.decode("utf-8", "replace")


def _name_of(head: bytes) -> str:
    names = []
    for line in head.split(b"\r\n"):
        field = _FIELD.fullmatch(line)
        if field is None or not _is_plain(field[1].lower(), field[2].lower()):
            raise UnusualFormError("a part of the form has a header of its own kind")
        if field[1].lower() == b"content-disposition":
            found = _DISPOSITION.fullmatch(field[2])
            if found is None:
                raise UnusualFormError("a part of the form has an unusual name")
            names.append(found[1] if found[1] is not None else found[2])
    if len(names) != 1:
        raise UnusualFormError("a part of the form has not one name")
    return names[0].decode("utf-8", "replace")


def _is_plain(name: bytes, value: bytes) -> bool:
    """Tell whether a header of a part leaves the name and the value as they are."""
    return name in _KNOWN or (name == _ENCODING and value.strip() in _AS_IT_IS)
