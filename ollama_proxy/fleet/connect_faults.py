"""Explain why a server can't be reached, and what to do, from an exception or response.

Pure. Where the backend created the address and no setting holds it, the advice does not
mention a setting.
"""

import errno
import re
import socket
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import aiohttp

from ollama_proxy.fleet.reports import without
from ollama_proxy.upstream.endpoint import Upstream, secrets_of

_STATIC = "OLLAMA_PROXY_UPSTREAM_URL"
_SHOWN = 80
_LONGEST_URL = 300
_TLS_SPOKEN = ("https server", "https port", "ssl-enabled")
_HOSTNAME_MISMATCH = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH
_EXPIRED = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, …_CERT_HAS_EXPIRED


@dataclass(frozen=True, slots=True)
class ConnectFault:
    """Says in one sentence why a server does not answer as Ollama does.

    ``passes``: a starting server looks the same, so this is no alarm.
    """

    message: str
    passes: bool


def of_error(upstream: Upstream, error: Exception) -> ConnectFault:
    """Return what an exception of asking a server means."""
    cause = getattr(error, "os_error", error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _of_certificate(upstream, error.certificate_error)
    if isinstance(cause, ssl.SSLError):
        return _of_tls(upstream, cause)
    if isinstance(error, aiohttp.ClientResponseError):
        return _of_no_http(upstream, error.message)
    return _of_network(upstream, error, cause)


def _of_network(upstream: Upstream, error: Exception, cause: object) -> ConnectFault:
    """Return the fault behind a request without any response."""
    place = _place(upstream)
    if isinstance(cause, socket.gaierror):
        said = f"the name {urlsplit(upstream.url).hostname!r} does not resolve"
        advice = _or_else(upstream, "check it in")
        return ConnectFault(f"{said} ({cause.strerror}){advice}", passes=False)
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        said = f"{place} is no address that can be asked"
        return ConnectFault(said + _or_else(upstream, "mend"), passes=False)
    said = f"{place} can't be reached: {_reason(cause)}"
    if isinstance(error, TimeoutError):
        said = f"{place} does not answer in time"
    elif _is_silent(error, cause):
        said = f"{place} closes the connection without an answer"
        if upstream.url.startswith("http:"):
            said += _or_else(upstream, "if it speaks TLS, write https:// in")
    return ConnectFault(said, passes=True)


def of_answer(
    upstream: Upstream, status: int, headers: Mapping[str, str], body: bytes
) -> ConnectFault:
    """Return what an answer to ``GET /api/version`` means that is not Ollama's."""
    place, words = _place(upstream), first_words(body, secrets_of(upstream.link))
    if 300 <= status < 400:  # noqa: PLR2004
        return _of_redirect(upstream, status, headers.get("Location", ""))
    if status in {401, 403, 407}:
        whose = refusal_of(upstream)
        return ConnectFault(f"{place} answers {status}: {whose}", passes=False)
    if status == 400 and any(said in words.lower() for said in _TLS_SPOKEN):  # noqa: PLR2004
        said = f"{place} speaks TLS, and was asked without"
        return ConnectFault(
            said + _or_else(upstream, "write https:// in"), passes=False
        )
    if status == 429 or status >= 500:  # noqa: PLR2004
        return ConnectFault(f"{place} answers {status}: {words}", passes=True)
    kind = headers.get("Content-Type", "").lower()
    what = "a web page" if "html" in kind or body.lstrip()[:1] == b"<" else "no version"
    said = f"{place} is not Ollama: it answers /api/version with {status} and {what}"
    said = f"{said} ({words})" if words else said
    advice = _or_else(upstream, "check host, port and path of")
    return ConnectFault(said + advice, passes=False)


def of_loop(upstream: Upstream) -> ConnectFault:
    """Return the fault of a server through which our request looped back."""
    said = f"{_place(upstream)} leads back to this proxy itself"
    advice = _or_else(upstream, "write the address of an Ollama server in")
    return ConnectFault(said + advice, passes=False)


def refusal_of(upstream: Upstream) -> str:
    """Return the fault of a server that refuses the proxy."""
    link = upstream.link
    if upstream.is_guarded:
        settings = " or ".join(link.settings) if link is not None else ""
        mend = f"; check {settings}" if settings else ""
        return f"its gateway refuses the proxy's token{mend}"
    if link is not None and link.settings:
        return f"it refuses the proxy's credentials; mend {' or '.join(link.settings)}"
    if upstream.setting != _STATIC:
        advice = _or_else(upstream, "an address that asks for none has to be in")
        return f"it wants credentials{advice}"
    return (
        "it wants credentials; set OLLAMA_PROXY_UPSTREAM_TOKEN or"
        f" OLLAMA_PROXY_UPSTREAM_HEADERS, or write user:password@ into {_STATIC}"
    )


def first_words(body: bytes, secrets: Collection[str] = ()) -> str:
    """Return the beginning of a body, on one line and without markup.

    ``secrets`` are removed, because a server may repeat what it received.
    """
    text = without(secrets, body[:4096].decode("utf-8", "replace"))
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    bare = title[1] if title else re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", text)
    shown = "".join(sign if sign.isprintable() else " " for sign in bare)
    return " ".join(shown.split())[:_SHOWN]


def _place(upstream: Upstream) -> str:
    parts = urlsplit(upstream.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _or_else(upstream: Upstream, advice: str) -> str:
    """Return what a person can do, if the address is from a setting."""
    return f"; {advice} {upstream.setting}" if upstream.setting else ""


def _of_certificate(upstream: Upstream, error: Exception) -> ConnectFault:
    said = getattr(error, "verify_message", "") or str(error)
    code = getattr(error, "verify_code", None)
    where = "SSL_CERT_FILE"
    if upstream.setting == _STATIC:
        where = "SSL_CERT_FILE or OLLAMA_PROXY_UPSTREAM_CA"
    advice = f"; set {where} to a file with the certificate that it is signed with"
    if code in _HOSTNAME_MISMATCH:
        advice = _or_else(upstream, "write the name that the certificate is for in")
    elif code in _EXPIRED:
        advice = "; renew it, or set this machine's clock"
    message = f"{_place(upstream)} has a certificate that is not trusted: {said}"
    if upstream.is_guarded:
        return ConnectFault(message, passes=False)
    return ConnectFault(message + advice, passes=False)


def _of_tls(upstream: Upstream, error: ssl.SSLError) -> ConnectFault:
    """Return what a failed handshake means; some servers answer in plain HTTP."""
    reason = error.reason or str(error)
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}:
        said = f"{_place(upstream)} does not speak TLS"
        return ConnectFault(said + _or_else(upstream, "write http:// in"), passes=False)
    words = reason.replace("_", " ").lower()
    return ConnectFault(
        f"{_place(upstream)} agrees on no TLS with us: {words}", passes=False
    )


def _of_redirect(upstream: Upstream, status: int, location: str) -> ConnectFault:
    """Return what a redirect means; none is followed, or each request would be two."""
    target = urlsplit(urljoin(f"{upstream.url}/api/version", location))
    netloc = target.netloc.rpartition("@")[2]
    aim = f"{target.scheme}://{netloc}{target.path}".rstrip("/")[:_LONGEST_URL]
    said = f"{_place(upstream)} redirects ({status})"
    if not location:
        return ConnectFault(f"{said} without saying where to", passes=False)
    base = aim.removesuffix("/api/version")
    if base != aim:
        advice = f"; set {upstream.setting}={base}" if upstream.setting else ""
        return ConnectFault(f"{said} to {base}{advice}", passes=False)
    message = f"{said} to {aim}, a log-in page perhaps"
    return ConnectFault(message + _or_else(upstream, "check"), passes=False)


def _of_no_http(upstream: Upstream, message: str) -> ConnectFault:
    """Return what an answer means that is not HTTP; TLS alerts begin with 15 03."""
    if "\\x15\\x03" in message or "\x15\x03" in message:
        said = f"{_place(upstream)} speaks TLS, and was asked without"
        return ConnectFault(
            said + _or_else(upstream, "write https:// in"), passes=False
        )
    said = f"{_place(upstream)} does not speak HTTP"
    return ConnectFault(said + _or_else(upstream, "check the port in"), passes=False)


def _is_silent(error: Exception, cause: object) -> bool:
    resets = ConnectionResetError | BrokenPipeError | ConnectionAbortedError
    is_reset = isinstance(cause, OSError) and cause.errno == errno.ECONNRESET
    return isinstance(error, aiohttp.ServerDisconnectedError) or (
        isinstance(cause, resets) or is_reset
    )


def _reason(cause: object) -> str:
    """Return an exception in words, without the addresses that Python adds."""
    match cause:
        case ConnectionRefusedError():
            return "nothing listens there (connection refused)"
        case OSError(errno=int(number)):
            return errno.errorcode.get(number, str(number)) + f" ({cause.strerror})"
    return str(cause) or type(cause).__name__
