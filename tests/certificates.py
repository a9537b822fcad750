"""A private authority and certificates of it, for tests; keys are made once."""

import functools
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.server.tls.certificate import CertificateFiles

WALL = SystemClock().wall
DAY_S = 86_400.0
HOSTS = ("127.0.0.1", "localhost", "gpu.test")


@functools.cache
def key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """Return one of some private keys."""
    del number
    return ec.generate_private_key(ec.SECP256R1())


def pem_key(number: int = 0, passphrase: bytes | None = None) -> bytes:
    return key(number).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    number: int = 0,
    *,
    issuer: int = 99,
    is_authority: bool = False,
    begins_s: float = -DAY_S,
    ends_s: float = 90 * DAY_S,
    hosts: Sequence[str] = HOSTS,
) -> bytes:
    """Return the PEM of a certificate of a key, by another key's authority."""
    now = datetime.fromtimestamp(WALL(), UTC)
    subject = "private CA" if is_authority else hosts[0]
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("private CA"))
        .public_key(key(number).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(seconds=begins_s))
        .not_valid_after(now + timedelta(seconds=ends_s))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key(number).public_key()),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                key(issuer).public_key()
            ),
            critical=False,
        )
    )
    if is_authority:
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
    else:
        names = x509.SubjectAlternativeName([_san(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    signed = builder.sign(key(issuer), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@dataclass(frozen=True, slots=True)
class PrivateCa:
    """The files of a certificate by a private authority, and the authority's own."""

    files: CertificateFiles
    authority: Path

    @property
    def settings(self) -> dict[str, str]:
        return {
            "OLLAMA_PROXY_TLS_CERT": str(self.files.certificate),
            "OLLAMA_PROXY_TLS_KEY": str(self.files.key),
        }

    def trusting(self) -> ssl.SSLContext:
        """Return what a client has that trusts the authority and nothing else."""
        return ssl.create_default_context(cafile=self.authority)

    def serving(self) -> ssl.SSLContext:
        """Return what a server has that shows the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.files.certificate, self.files.key)
        return context

    def renew(self, number: int, **of_certificate: float) -> None:
        """Replace the certificate, and its key, as programs do: each at once."""
        self.renew_certificate(number, **of_certificate)
        replace(self.files.key, pem_key(number))

    def renew_certificate(self, number: int, **of_certificate: float) -> None:
        replace(self.files.certificate, certificate(number, **of_certificate))  # type: ignore[arg-type]


def replace(path: Path, data: bytes) -> None:
    """Write a file beside another one, and move it there."""
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(data)
    fresh.replace(path)


def private_ca(folder: Path, number: int = 0) -> PrivateCa:
    """Write a certificate of a private authority into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = CertificateFiles(folder / "proxy.crt", folder / "proxy.key")
    authority = folder / "ca.crt"
    authority.write_bytes(certificate(99, is_authority=True))
    files.certificate.write_bytes(certificate(number))
    files.key.write_bytes(pem_key(number))
    return PrivateCa(files, authority)
