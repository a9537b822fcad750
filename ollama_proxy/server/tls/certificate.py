"""Read the certificate that the proxy shows to clients, and say what is wrong with it.

Both files are PEM. The certificate's file begins with the proxy's own certificate; the
authorities between it and the root follow.
"""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from ollama_proxy.base.errors import ProxyError
from ollama_proxy.base.moments import is_date_known
from ollama_proxy.base.regular_file import read_regular
from ollama_proxy.base.server_tls import server_context

CERT: Final = "OLLAMA_PROXY_TLS_CERT"
KEY: Final = "OLLAMA_PROXY_TLS_KEY"

_MAX_BYTES = 1024 * 1024
_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----\s.*?-----END CERTIFICATE-----", re.DOTALL
)
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN ((?:[A-Z]+ )*PRIVATE KEY)-----\s.*?-----END \1-----", re.DOTALL
)
_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


class CertificateError(ProxyError):
    """Reports that a certificate can't be used; the message says what to change."""

    reason = "certificate"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Names the files of a certificate and its key."""

    certificate: Path
    key: Path

    def stamp(self) -> tuple[tuple[int, ...], ...]:
        """Return what changes with the files' contents; without a file, nothing."""
        return tuple(_stamp(path) for path in (self.certificate, self.key))


@dataclass(frozen=True, slots=True)
class LoadedCertificate:
    """Holds a certificate that is fit for handshakes.

    ``own``: the proxy's own certificate alone, PEM. ``ends_at``: in epoch seconds.
    ``host``: a name or address that it is for, "" if it has none.
    """

    context: ssl.SSLContext = field(repr=False)
    own: str
    ends_at: float
    host: str


def load(files: CertificateFiles, wall: float) -> LoadedCertificate:
    """Return the certificate as its files have it now.

    ``wall``: the date, in epoch seconds; if it is not known, the certificate's dates
    are not checked. Raises `CertificateError`.
    """
    chain, secret = _read(CERT, files.certificate), _read(KEY, files.key)
    own = _own(files.certificate, chain)
    _check_key(files, own, secret)
    facts = _facts(files.certificate, own)
    _check_dates(files.certificate, facts, wall)
    context = _context(files)
    if (chain, secret) != (_read(CERT, files.certificate), _read(KEY, files.key)):
        raise CertificateError(
            f"{_named(CERT, files.certificate)} changed while it was read"
        )
    pem = own.public_bytes(serialization.Encoding.PEM).decode()
    return LoadedCertificate(context, pem, facts.ends_at, facts.host)


def expiry_words(ends_at: float, wall: float) -> str | None:
    """Return a sentence on a certificate that is out of date; None if it is not."""
    if wall <= ends_at or not is_date_known(wall):
        return None
    return (
        f"the certificate expired on {_date(ends_at)}, so clients refuse it; renew"
        f" the files in {CERT} and {KEY}: they are read again by themselves"
    )


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _named(setting: str, path: Path) -> str:
    return f"{str(path)!r} in {setting}"


def _read(setting: str, path: Path) -> bytes:
    """Return the bytes of a regular file of at most 1 MiB."""
    try:
        data, _mode = read_regular(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise CertificateError(
            f"{_named(setting, path)} can't be read ({why}); name a PEM file that this"
            " user may read"
        ) from error
    if data is None:
        raise CertificateError(
            f"{_named(setting, path)} is no regular file; name a PEM file"
        )
    if len(data) > _MAX_BYTES:
        raise CertificateError(
            f"{_named(setting, path)} has more than 1 MiB; name a PEM file"
        )
    return data


def _own(path: Path, chain: bytes) -> x509.Certificate:
    """Return the first certificate of a file."""
    block = _CERTIFICATE.search(chain)
    if block is None:
        raise CertificateError(
            f"{_named(CERT, path)} has no PEM certificate; write the proxy's own first,"
            " then those between it and the root"
        )
    try:
        return x509.load_pem_x509_certificate(block[0])
    except ValueError as error:
        raise _damaged(path) from error


class _Facts(NamedTuple):
    """Holds when a certificate begins and ends, and a host that it is for."""

    begins_at: float
    ends_at: float
    host: str


def _facts(path: Path, own: x509.Certificate) -> _Facts:
    """Return what a certificate says; much of it is parsed only now."""
    try:
        begins, ends = own.not_valid_before_utc, own.not_valid_after_utc
        return _Facts(begins.timestamp(), ends.timestamp(), _host(own))
    except (ValueError, OverflowError, x509.DuplicateExtension) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> CertificateError:
    return CertificateError(
        f"{_named(CERT, path)} has a damaged certificate; write it again"
    )


def _check_key(files: CertificateFiles, own: x509.Certificate, secret: bytes) -> None:
    """Check that the file of the key has one, and that it is the certificate's."""
    block = _PRIVATE_KEY.search(secret)
    if block is None:
        raise CertificateError(
            f"{_named(KEY, files.key)} has no PEM private key; name the file with the"
            " key of the certificate"
        )
    if any(mark in block[0] for mark in _ENCRYPTED):
        raise CertificateError(
            f"{_named(KEY, files.key)} is encrypted, and nobody types its passphrase;"
            " write it without one: openssl pkey -in KEY -out NEW"
        )
    try:
        key = serialization.load_pem_private_key(block[0], None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"{_named(KEY, files.key)} has a damaged private key, or one of an unknown"
            " kind; write it again"
        ) from error
    if _public(key.public_key) != _public(own.public_key):
        raise CertificateError(
            f"{_named(KEY, files.key)} does not fit the first certificate of"
            f" {_named(CERT, files.certificate)}; name the key that it was made with"
        )


def _public(read: Callable[[], object]) -> bytes:
    """Return a public key's bytes; none for a kind that is not known."""
    try:
        key = read()
        encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]  # of any kind
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm):
        return b""
    return encoded


def _host(own: x509.Certificate) -> str:
    """Return a host that a certificate is for: any one if it is for many."""
    try:
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.UnsupportedGeneralNameType):
        return ""
    hosts = names.value.get_values_for_type(x509.DNSName)
    hosts += map(str, names.value.get_values_for_type(x509.IPAddress))
    return hosts[0].replace("*", "ollama") if hosts else ""


def _check_dates(path: Path, facts: _Facts, wall: float) -> None:
    if not is_date_known(wall):
        return
    begins, ends = facts.begins_at, facts.ends_at
    if wall > ends:
        raise CertificateError(
            f"the certificate {_named(CERT, path)} expired on {_date(ends)}; renew it"
        )
    if wall < begins:
        raise CertificateError(
            f"the certificate {_named(CERT, path)} is not valid before {_date(begins)};"
            " wait until then, set this machine's date, or name another one"
        )


def _date(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"


def _context(files: CertificateFiles) -> ssl.SSLContext:
    """Return what serves handshakes with the files."""
    context = server_context()
    try:
        # Without a password, OpenSSL would ask a terminal for that of an encrypted key.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise CertificateError(
            f"OpenSSL refuses {_named(CERT, files.certificate)} with"
            f" {_named(KEY, files.key)} ({why}); make a new pair"
        ) from error
    return context
