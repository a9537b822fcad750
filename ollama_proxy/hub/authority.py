"""Sign the certificates of the hub and of its nodes, by an authority of its own.

The authority is made at the hub's first start and stands in the state folder. Its
constraints let it vouch for names below `DOMAIN` alone, so a machine that trusts it
loses nothing else to a thief of its key.

Dates of certificates are not checked: machines without a battery boot in 1970, and
a node's clock must change nothing. What ends trust is the removal of a node's key.
"""

import hashlib
import hmac
import ipaddress
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import ProxyError, StartupError
from ollama_proxy.base.private_file import write_private
from ollama_proxy.base.server_tls import server_context
from ollama_proxy.core.nodes.node_keys import NodeKeyId, letters
from ollama_proxy.core.nodes.tls_names import DOMAIN, HUB_NAME, node_name
from ollama_proxy.upstream.certificates import (
    AUTHORITY_LIFE,
    certificate_builder,
    common_name,
    load_key,
    pem_of,
    pem_of_key,
)
from ollama_proxy.upstream.endpoint import Link
from ollama_proxy.upstream.hub_trust import fingerprint, trusting

LONGEST_REQUEST: Final = 8192
"""Characters of a request for a certificate; one of ours has some 350."""

FOLDER: Final = "hub"
"""The folder within the state folder."""

_KEY, _CERTIFICATE = "authority.key", "authority.crt"
_HUB_KEY, _HUB_CERTIFICATE = "hub.key", "hub.crt"
_LIFE = timedelta(days=90)
_CURVE = ec.SECP256R1()
_EVERYWHERE = ("0.0.0.0/0", "::/0")


class CertificateRequestError(ProxyError):
    """Reports a request for a certificate that is not signed, in a sentence."""

    reason = "certificate_request"


class HubAuthority:
    """Signs certificates, and has the secrets by which nodes know the hub.

    ``folder``: the state folder. ``is_new``: no earlier process had this authority, so
    nodes that have joined trust another one. Raises `StartupError` if the folder can't
    be used.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder / FOLDER
        self._clock = clock
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.is_new = not (self._folder / _KEY).exists()
            self._key = load_key(self._folder / _KEY)
            self._certificate = self._load_certificate(self._folder / _CERTIFICATE)
            self.hub_context = self._make_hub_context()
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise StartupError(
                f"the hub's certificate authority in {str(self._folder)!r} can't be"
                f" used ({error}); make room and see to its rights, or remove that"
                " folder: every node then has to join again"
            ) from error
        self._node_context = trusting(self.certificate)

    @property
    def certificate(self) -> str:
        """Return the authority's certificate, PEM."""
        return pem_of(self._certificate).decode()

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the authority's public key, as join tokens have it."""
        return fingerprint(self._key.public_key())

    def sign(self, request: str, key_id: NodeKeyId) -> str:
        """Return a certificate, PEM, for the node with a key, as a request asks for it.

        ``request``: PEM (RFC 2986); only its public key counts. Raises
        `CertificateRequestError`.
        """
        return pem_of(self._signed(_public_key(request), node_name(key_id))).decode()

    def hub_token(self, key_id: NodeKeyId) -> str:
        """Return what the hub sends to a node with each request; it is never stored.

        It is drawn from the authority's key, and another one for each key of a node.
        """
        return letters(self._drawn(b"hub token of " + key_id.encode()))

    def link(self, key_id: NodeKeyId, *, is_tls: bool) -> Link:
        """Return the link to the node with a key; without TLS it has a token alone."""
        token = self.hub_token(key_id)
        if not is_tls:
            return Link(token)
        return Link(token, node_name(key_id), self._node_context)

    def renew_hub_certificate(self) -> None:
        """Make a new certificate for the hub; `hub_context` shows it from then on.

        Raises `OSError`.
        """
        self._show_hub_certificate(self.hub_context)

    def _drawn(self, label: bytes) -> bytes:
        secret = self._key.private_numbers().private_value.to_bytes(32, "big")
        return hmac.new(secret, label, hashlib.sha256).digest()

    def _load_certificate(self, path: Path) -> x509.Certificate:
        """Return the certificate of the key; it is signed again if it is not its own.

        The key is what nodes trust, so they need not hear of a new certificate.
        """
        try:
            found = x509.load_pem_x509_certificate(path.read_bytes())
            if fingerprint(found.public_key()) == fingerprint(self._key.public_key()):
                return found
        except (FileNotFoundError, ValueError):
            pass
        made = self._self_signed()
        write_private(path, pem_of(made), is_lasting=True)
        return made

    def _self_signed(self) -> x509.Certificate:
        name, wall = common_name("ollama-proxy hub"), self._clock.wall()
        public = self._key.public_key()
        constraints = x509.NameConstraints(
            permitted_subtrees=[x509.DNSName(DOMAIN)],
            excluded_subtrees=[
                x509.IPAddress(ipaddress.ip_network(network)) for network in _EVERYWHERE
            ],
        )
        return (
            certificate_builder(name, name, public, life=AUTHORITY_LIFE, wall=wall)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(constraints, critical=True)
            .add_extension(_SERVERS, critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(public), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    def _signed(self, public: ec.EllipticCurvePublicKey, name: str) -> x509.Certificate:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(
            self._key.public_key()
        )
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        no_authority = x509.BasicConstraints(ca=False, path_length=None)
        issuer = self._certificate.subject
        return (
            certificate_builder(
                common_name(name), issuer, public, life=_LIFE, wall=self._clock.wall()
            )
            .add_extension(no_authority, critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(_SERVERS, critical=False)
            .add_extension(names, critical=False)
            .add_extension(authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _make_hub_context(self) -> ssl.SSLContext:
        context = server_context()
        self._show_hub_certificate(context)
        return context

    def _show_hub_certificate(self, context: ssl.SSLContext) -> None:
        """Have a context show a new certificate; OpenSSL reads it from files alone."""
        key = ec.generate_private_key(_CURVE)
        signed = self._signed(key.public_key(), HUB_NAME)
        key_file = self._folder / _HUB_KEY
        certificate_file = self._folder / _HUB_CERTIFICATE
        write_private(key_file, pem_of_key(key))
        write_private(certificate_file, pem_of(signed))
        context.load_cert_chain(certificate_file, key_file)


def _public_key(request: str) -> ec.EllipticCurvePublicKey:
    """Return the public key of a request whose sender has the private one."""
    if len(request) > LONGEST_REQUEST:
        raise CertificateRequestError(
            f"a request for a certificate has up to {LONGEST_REQUEST} letters, and this"
            f" one {len(request)}"
        )
    try:
        found = x509.load_pem_x509_csr(request.encode("utf-8", "replace"))
        key, is_valid = found.public_key(), found.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateRequestError(
            "the request for a certificate is none in PEM (RFC 2986); the agent of"
            " ollama-proxy sends one"
        ) from error
    if not is_valid:
        raise CertificateRequestError(
            "the request for a certificate is not signed by its own key"
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == _CURVE.name:
        return key
    raise CertificateRequestError(
        "the request for a certificate has a key of another kind; make one on the curve"
        " P-256"
    )


_SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def _usage(*, signs: bool) -> x509.KeyUsage:
    """Return what a key may do: sign certificates, or only handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
