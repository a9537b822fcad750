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


def trusting(authority: str) -> ssl.SSLContext:
    """Return what connects to servers that an authority, PEM, vouches for by name.

    Dates of certificates are not checked: machines without a battery boot in 1970.
    Raises `ssl.SSLError` for a damaged certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= NO_CHECK_TIME
    context.load_verify_locations(cadata=authority)
    return context
