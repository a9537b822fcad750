"""Make the private key of a node, and ask for a certificate for it."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ollama_proxy.upstream.certificates import pem_of_key


def make_private_key() -> str:
    """Return a new private key, PEM, on the curve that the hub signs for."""
    return pem_of_key(ec.generate_private_key(ec.SECP256R1())).decode()


def certificate_request(private_key: str) -> str:
    """Return a request for a certificate, PEM (RFC 2986), signed by a private key.

    It names nothing: the hub chooses the name. Raises `ValueError` for a damaged key.
    """
    key = serialization.load_pem_private_key(private_key.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("it is no elliptic-curve key")  # noqa: TRY004 - one kind
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return (
        made.sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
