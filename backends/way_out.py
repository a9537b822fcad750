"""Reach a cloud through the web proxy of a network without direct access.

It uses the variables that other programs use: ``HTTPS_PROXY``, ``HTTP_PROXY`` and
``NO_PROXY``, in upper or lower case, and ``SSL_CERT_FILE`` (or ``REQUESTS_CA_BUNDLE``,
``CURL_CA_BUNDLE``) for the authority of a proxy that opens TLS. Only for the APIs of
clouds and for registries: instances, and servers on this machine, are contacted
directly.
"""

import ipaddress
import os
import ssl
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from ollama_proxy.base.environment import unquoted
from ollama_proxy.base.errors import SpecError

_AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
ADVICE = (
    "if a proxy of your network opens TLS, set SSL_CERT_FILE to the certificate of its"
    " authority"
)


def is_here(url: str) -> bool:
    """Tell whether a URL leads to this machine, which no proxy does."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def web_proxy(url: str) -> str | None:
    """Return the proxy for a URL; None if it is contacted directly.

    Raises `SpecError` for a proxy that does not use HTTP.
    """
    parts = urlsplit(url)
    proxies = urllib.request.getproxies_environment()
    found = unquoted(proxies.get(parts.scheme) or proxies.get("all") or "")
    host = parts.netloc.rpartition("@")[2]
    if not found or is_here(url):
        return None
    if "*" in [name.strip() for name in proxies.get("no", "").split(",")]:
        return None
    if urllib.request.proxy_bypass_environment(host, proxies):  # type: ignore[attr-defined]  # public, but not in the stubs
        return None
    proxy = found if "://" in found else f"http://{found}"
    if urlsplit(proxy).scheme != "http" or not urlsplit(proxy).hostname:
        kind = urlsplit(proxy).scheme
        raise SpecError(
            f"{parts.scheme.upper()}_PROXY: a proxy that is spoken to in {kind!r} can't"
            " be used; write http://host:port"
        )
    return proxy


def why_nothing_left(error: Exception) -> str | None:
    """Return why a request of `requests` was not sent, in words.

    None: it may have arrived. The reason is in the urllib3 error inside.
    """
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if type(reason).__name__ == "ProxyError":
        cause = getattr(reason, "original_error", None)
        is_told = isinstance(cause, OSError) and type(cause).__module__ != "urllib3"
        told = str(cause) if is_told else "no connection"
        return f"the proxy of this network let nothing pass ({told}); see HTTPS_PROXY"
    arguments = getattr(reason, "args", ())
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in arguments):
        return f"the certificate is not trusted; {ADVICE}"
    return None


def authorities() -> str | None:
    """Return the file of trusted authorities; None for the system's own.

    Raises `SpecError` if it can't be read.
    """
    for name in _AUTHORITIES:
        if path := unquoted(os.environ.get(name, "")):
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), name, path)
            return path
    return None


def tls() -> ssl.SSLContext:
    """Return what a cloud's certificate is checked by: also those authorities."""
    context = ssl.create_default_context()
    if path := authorities():
        _load(context, "SSL_CERT_FILE", path)
    return context


def _load(context: ssl.SSLContext, name: str, path: str) -> None:
    is_folder = Path(path).is_dir()
    try:
        context.load_verify_locations(
            capath=path if is_folder else None, cafile=None if is_folder else path
        )
    except OSError as error:  # `ssl.SSLError` is an OSError
        raise SpecError(
            f"{name}: {path!r} can't be read as certificates"
            f" ({error.strerror or error}); set it to a file in PEM format"
        ) from error
