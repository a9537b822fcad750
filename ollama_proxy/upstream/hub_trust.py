"""Trust the authority of a hub, and nothing else: on both sides of the connection."""

import hashlib
import ssl

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes,
)

from ollama_proxy.base.pinned_tls import NO_CHECK_TIME
from ollama_proxy.core.nodes.node_keys import letters


def fingerprint(key: CertificatePublicKeyTypes) -> str:
    """Return the SHA-256 of a public key, as join tokens have it."""
    encoded = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return letters(hashlib.sha256(encoded).digest())


def fingerprint_of(certificate: str) -> str:
    """Return the fingerprint of a certificate in PEM; "" if it is damaged."""
    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
        return fingerprint(found.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return ""


def trusting(authority: str, name: str | None = None) -> ssl.SSLContext:
    """Return what connects to servers that an authority, PEM, vouches for by name.

    ``name``: the one that each of them must have, whatever address it is found at.
    Dates of certificates are not checked: machines without a battery boot in 1970.
    Raises `ssl.SSLError` for a damaged certificate.
    """
    context = _Named(ssl.PROTOCOL_TLS_CLIENT)
    context.name = name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= NO_CHECK_TIME
    context.load_verify_locations(cadata=authority)
    return context


class _Named(ssl.SSLContext):
    """Asks for one name and checks it, in place of the host of each URL."""

    name: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - likewise
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a handshake in memory: asyncio does each of its own so."""
        host = self.name or server_hostname
        return super().wrap_bio(incoming, outgoing, server_side, host, session)
