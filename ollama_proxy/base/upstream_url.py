"""Parse the address of an upstream, with or without a login.

Errors leave the login out: anything before the last ``@`` may be a password.
"""

import base64
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, SecretStr

_HIDDEN = "***"
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\s\[\]@\\?#]+)(?::(\d{1,5}))?")
_MAX_PORT = 65535
_UNESCAPED = re.compile(r"[?#\s\\]")
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_LOGINS = re.compile(r"(\w://)\S*@")


class UpstreamUrl(BaseModel):
    """Holds a base URL without a trailing slash, and the login for it.

    ``authorization``: the header's value. ``password``: its secret part.
    """

    model_config = ConfigDict(frozen=True)

    url: str
    password: SecretStr | None = None
    authorization: SecretStr | None = None


def parse_upstream_url(value: object) -> UpstreamUrl:
    """Return the URL of an upstream; ``user:password@`` may stand before its host.

    User and password may be percent-encoded (RFC 3986 §3.2.1); the password may be
    missing.
    """
    if isinstance(value, UpstreamUrl):
        return value
    if not isinstance(value, str):
        raise ValueError("this is no text; write http://host:port")  # noqa: TRY004
    text = value.strip().rstrip("/")
    scheme, _, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    login, at, host = authority.rpartition("@")
    is_http = scheme.lower() in {"http", "https"}
    is_written_out = not _UNESCAPED.search(login + path) and "@" not in path
    if not is_http or not is_written_out or not _is_place(host):
        escapes = "; in a login write / as %2F, # as %23, ? as %3F and blanks as %20"
        raise ValueError(
            f"{without_login(text)!r} is not a URL; write http://host:port"
            + (escapes if "@" in text else "")
        )
    url = f"{scheme.lower()}://{host}{slash}{path}"
    if not at:
        return UpstreamUrl(url=url)
    user, password = _decoded(login, shown=without_login(text))
    basic = base64.b64encode(user + b":" + password).decode()
    return UpstreamUrl(
        url=url,
        password=SecretStr((password or user).decode("utf-8", "replace")),
        authorization=SecretStr(f"Basic {basic}"),
    )


def _is_place(host: str) -> bool:
    """Tell whether this is a host, or an address in brackets, with an optional port."""
    match = _AUTHORITY.fullmatch(host)
    return match is not None and int(match[2] or 1) in range(1, _MAX_PORT + 1)


def _decoded(login: str, *, shown: str) -> tuple[bytes, bytes]:
    """Return user and password as bytes; what RFC 7617 §2 forbids raises an error."""
    user, _, password = login.partition(":")
    found = unquote_to_bytes(user), unquote_to_bytes(password)
    if not found[0] and not found[1]:
        raise ValueError(f"{shown!r} has an empty login; remove the @")
    if b":" in found[0]:
        raise ValueError(f"{shown!r} has a user with a colon, which Basic can't carry")
    if _CONTROLS.search(b"".join(found)):
        raise ValueError(f"{shown!r} has a control character in its login")
    return found


def without_login(text: str) -> str:
    """Return what a person wrote as an address, without what may be a secret of it."""
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "", text
    before, at, place = rest.rpartition("@")
    place = re.sub(r"[?#].*", f"?{_HIDDEN}", place, flags=re.DOTALL)
    del before
    return f"{scheme}{found}{_HIDDEN + at if at else ''}{place}"


def without_logins(text: str) -> str:
    """Return a text in which no address has its login any more."""
    return _LOGINS.sub(rf"\1{_HIDDEN}@", text)


def shown_input(value: object, message: str) -> str:
    """Return a wrong value for the end of a message that does not have it; no login.

    A table is not quoted: it may contain secrets.
    """
    if isinstance(value, Mapping) or repr(value) in message:
        return ""
    shown = without_login(value) if isinstance(value, str) and "@" in value else value
    return "" if repr(shown) in message else f" (got {without_logins(repr(shown))})"
