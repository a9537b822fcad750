"""Sign the certificates of a deployment, by an authority created at its first start.

Each launch gets a certificate with its name, and a token. The proxy gets a link that
trusts that launch alone.
"""

import base64
import contextlib
import hashlib
import hmac
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.moments import is_date_known
from ollama_proxy.base.pinned_tls import NO_CHECK_TIME
from ollama_proxy.base.private_file import write_private
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.upstream.endpoint import Link

AUTHORITY_LIFE = timedelta(days=3650)
_CERTIFICATE_LIFE = timedelta(days=1825)
_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Holds a certificate with its private key, both PEM."""

    certificate: str
    key: str = field(repr=False)


class Authority:
    """Signs the certificates of one deployment's instances."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._clock = clock
        self._path = folder / "authority.crt"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._key = load_key(folder / "authority.key")
            self._certificate = self._load_certificate()
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise StartupError(
                f"the certificate authority in {str(folder)!r} can't be used: {error}; "
                "make room, mend the folder, or remove it while no instance is up"
                " (OLLAMA_PROXY_STATE_DIR names the folder above it)"
            ) from error

    def _load_certificate(self) -> x509.Certificate:
        if not self._path.exists():
            write_private(self._path, pem_of(self._self_signed()), is_lasting=True)
        return x509.load_pem_x509_certificate(self._path.read_bytes())

    def _valid_certificate(self) -> x509.Certificate:
        """Return the certificate, signed again if it is not valid at the present date.

        Either the date was wrong when it was created, or ten years have passed. The key
        stays the same, so what it has signed remains trusted.
        """
        wall = self._clock.wall()
        if is_date_known(wall) and not _is_for(self._certificate, wall):
            self._certificate = self._self_signed()
            with contextlib.suppress(OSError):  # a full disk: a later process saves it
                write_private(self._path, pem_of(self._certificate), is_lasting=True)
        return self._certificate

    def _self_signed(self) -> x509.Certificate:
        name, wall = common_name("ollama-proxy"), self._clock.wall()
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        public = self._key.public_key()
        return (
            certificate_builder(name, name, public, life=AUTHORITY_LIFE, wall=wall)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(public), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, launch_id: LaunchId) -> Certificate:
        """Return a new certificate in the name of a launch."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self._valid_certificate().subject
        names = x509.SubjectAlternativeName([x509.DNSName(launch_id)])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(
            self._key.public_key()
        )
        made = (
            certificate_builder(
                common_name(launch_id),
                issuer,
                key.public_key(),
                life=_CERTIFICATE_LIFE,
                wall=self._clock.wall(),
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)  # noqa: FBT003
            .add_extension(names, critical=False)
            .add_extension(usage, critical=False)
            .add_extension(authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(pem_of(made).decode(), pem_of_key(key).decode())

    def token(self, launch_id: LaunchId) -> str:
        """Return the token of a launch: drawn from the key, so never stored."""
        secret = self._key.private_numbers().private_value.to_bytes(32, "big")
        mac = hmac.new(secret, b"token of " + launch_id.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(mac.digest()).decode().rstrip("=")

    def link(self, launch_id: LaunchId) -> Link:
        """Return the link to the one server of this launch.

        The dates of its certificate are not checked: they come from this machine's
        date, which may have been wrong. The name is used for one launch only.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags |= NO_CHECK_TIME
        pem = pem_of(self._valid_certificate())
        context.load_verify_locations(cadata=pem.decode())
        return Link(self.token(launch_id), str(launch_id), context)


def _is_for(certificate: x509.Certificate, wall: float) -> bool:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins.timestamp() <= wall <= ends.timestamp()


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key in a file; make it if there is none.

    Raises `OSError`, `ValueError`, `UnsupportedAlgorithm`.
    """
    if not path.exists():
        fresh = ec.generate_private_key(ec.SECP256R1())
        write_private(path, pem_of_key(fresh), is_lasting=True)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} holds no elliptic-curve key")  # noqa: TRY004
    return key


def certificate_builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    *,
    life: timedelta,
    wall: float,
) -> x509.CertificateBuilder:
    """Return what makes a certificate, valid from an hour before the date ``wall``."""
    now = datetime.fromtimestamp(wall, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def common_name(name: str) -> x509.Name:
    """Return the name of a certificate's owner or issuer."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def pem_of(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM, without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
