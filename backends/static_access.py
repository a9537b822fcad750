"""Describe access to the upstream that a person named: credentials and certificates.

For the backend ``static``; clouds make links of their own.
"""

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from ollama_proxy.base.errors import SettingsError
from ollama_proxy.core.access.cors import is_local_name, is_own_address
from ollama_proxy.core.http.headers import NOT_FOR_UPSTREAM
from ollama_proxy.upstream.endpoint import Link

if TYPE_CHECKING:
    from ollama_proxy.backends.static_settings import StaticSettings

URL = "OLLAMA_PROXY_UPSTREAM_URL"
TOKEN = "OLLAMA_PROXY_UPSTREAM_TOKEN"  # noqa: S105 - the name of a setting
HEADERS = "OLLAMA_PROXY_UPSTREAM_HEADERS"
CA = "OLLAMA_PROXY_UPSTREAM_CA"
INSECURE = "OLLAMA_PROXY_UPSTREAM_INSECURE"

MOST_HEADERS = 32
LONGEST = 8192
"""Longest token, and longest headers together, in bytes: nginx accepts no more."""

_TOKEN = re.compile(r"[\x21-\x7e]+")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
_REFUSED = NOT_FOR_UPSTREAM | {"accept-encoding"}
_REFUSED_BEGINNINGS = ("content-", "x-ollama-proxy")

Pair = tuple[object, object]


def parse_token(value: object) -> SecretStr:
    """Return a bearer token; no error quotes it."""
    text = _plain(value).strip()
    if not _TOKEN.fullmatch(text) or len(text) > LONGEST:
        raise ValueError(
            "this is no token: visible ASCII without blanks or Bearer, up to 8 KB"
        )
    return SecretStr(text)


def parse_headers(value: object) -> dict[str, SecretStr]:
    """Return headers from lines of ``Name: value``, a JSON object or a table.

    Errors contain names and never values.
    """
    found: dict[str, SecretStr] = {}
    for number, (name, given) in enumerate(_pairs(value), 1):
        known = {one.lower() for one in found}
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"number {number} has no name; write Name: value")
        lowered = name.lower()
        if lowered in _REFUSED or lowered.startswith(_REFUSED_BEGINNINGS):
            raise ValueError(f"{name}: this header is the proxy's own; leave it out")
        if lowered in known:
            raise ValueError(f"{name}: this header is there twice")
        text = _plain(given).strip()
        if not text or not _VALUE.fullmatch(text):
            raise ValueError(f"{name}: its value has to be of visible ASCII and blanks")
        found[name] = SecretStr(text)
    size = sum(len(name) + len(text) for name, text in _shown(found).items())
    if len(found) > MOST_HEADERS or size > LONGEST:
        raise ValueError(f"these are too many: up to {MOST_HEADERS}, 8 KB in all")
    return found


def _pairs(value: object) -> Iterator[Pair]:
    """Yield names and values; they may still be anything."""
    if isinstance(value, Mapping):
        yield from value.items()
        return
    text = _plain(value).strip()
    if text.startswith("{"):
        try:
            pairs = json.loads(text, object_pairs_hook=list)
        except (ValueError, RecursionError):
            message = 'this is no JSON; write {"Name": "value"}'
            raise ValueError(message) from None
        yield from pairs
        return
    for line in text.splitlines():
        if line.strip():
            name, colon, rest = line.partition(":")
            yield (name.strip() if colon else None), rest


def _plain(value: object) -> str:
    """Return a text that may be a secret; anything else is none."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value if isinstance(value, str) else ""


def _shown(headers: Mapping[str, SecretStr]) -> dict[str, str]:
    """Return headers as they are sent."""
    return {name: value.get_secret_value() for name, value in headers.items()}


def access_link(settings: "StaticSettings") -> Link | None:
    """Return the link to the upstream; None if no setting needs one.

    Raises `SettingsError` if the certificates can't be read.
    """
    headers = _shown(settings.upstream_headers)
    url, token = settings.upstream_url, settings.upstream_token
    if url is not None and url.authorization is not None:
        headers["Authorization"] = url.authorization.get_secret_value()
    context = None
    if settings.upstream_insecure:
        context = _trusting_all()
    elif settings.upstream_ca is not None:
        if faults := _unreadable(settings.upstream_ca):
            raise SettingsError(faults)
        context = _trusting(settings.upstream_ca)
    named = _with_credentials(settings)
    if not named and context is None:
        return None
    return Link(
        token.get_secret_value() if token is not None else "",
        context=context,
        headers=headers,
        is_configured=True,
        settings=named,
    )


def _with_credentials(settings: "StaticSettings") -> tuple[str, ...]:
    """Return the settings that have credentials in them."""
    url = settings.upstream_url
    has_login = url is not None and url.authorization is not None
    given = {
        HEADERS: bool(settings.upstream_headers),
        URL: has_login,
        TOKEN: settings.upstream_token is not None,
    }
    return tuple(name for name, is_given in given.items() if is_given)


def _trusting(certificates: Path) -> ssl.SSLContext:
    """Return a TLS context that trusts these certificates, or what they have signed.

    As in Go and curl, a self-made certificate may lack extensions of RFC 5280, and may
    be an intermediate one. Python 3.13 and later require both by default.
    """
    context = ssl.create_default_context(cafile=str(certificates))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _trusting_all() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def access_faults(settings: "StaticSettings", backend: str) -> list[str]:
    """Return conflicts of these settings, and faults of the certificate file."""
    url = settings.upstream_url
    given = {
        TOKEN: settings.upstream_token is not None,
        HEADERS: bool(settings.upstream_headers),
        CA: settings.upstream_ca is not None,
        INSECURE: settings.upstream_insecure,
    }
    if backend != "static":
        takes = f"only the backend 'static' takes it, not {backend!r}; remove it"
        return [f"{name}: {takes}" for name, is_given in given.items() if is_given]
    wanting = [TOKEN] if given[TOKEN] else []
    if url is not None and url.authorization is not None:
        wanting.append(URL)
    if any(name.lower() == "authorization" for name in settings.upstream_headers):
        wanting.append(HEADERS)
    faults = []
    if len(wanting) > 1:
        faults.append(
            f"{' and '.join(wanting)}: each has an Authorization header of its own;"
            " keep one of them"
        )
    if given[CA] and given[INSECURE]:
        faults.append(
            f"{CA} and {INSECURE}: one trusts few certificates, the other all;"
            " keep one of them"
        )
    elif settings.upstream_ca is not None:
        faults += _unreadable(settings.upstream_ca)
    return faults


def _unreadable(certificates: Path) -> list[str]:
    """Return the faults of a certificate file."""
    try:
        _trusting(certificates)
    except ssl.SSLError as error:
        reason = (error.reason or "no certificate").replace("_", " ").lower()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such file"
    else:
        return []
    return [
        f"{CA}: {str(certificates)!r} can't be read as certificates ({reason}); name"
        " a file in PEM format"
    ]


def access_warnings(settings: "StaticSettings") -> list[str]:
    """Return a sentence for each unsafe property of the way to the upstream."""
    if settings.upstream_url is None:
        return []
    url, named = settings.upstream_url.url, _with_credentials(settings)
    parts, warnings = urlsplit(url), []
    host = parts.hostname or ""
    is_bare = not {".", ":"} & set(host)  # for example in a container network
    is_near = is_bare or is_own_address(host, ()) or is_local_name(host, "")
    if parts.scheme == "https" and settings.upstream_insecure:
        warnings.append(
            f"{INSECURE} is set: the certificate of {url} is not verified, so whoever"
            " is on the way can read and change prompts, answers and credentials"
        )
    trusts = INSECURE if settings.upstream_insecure else settings.upstream_ca and CA
    if parts.scheme == "http" and trusts:
        warnings.append(f"{trusts} changes nothing: {url} speaks no TLS")
    if parts.scheme == "http" and named and not is_near:
        warnings.append(
            f"the credentials of {' and '.join(named)} travel in the clear to"
            f" {url}; write https:// if it speaks TLS"
        )
    return warnings
