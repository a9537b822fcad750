"""Trust exactly the certificate of a proxy on this machine, for its own commands.

They connect to an address of this machine, which the certificate need not name.
"""

import ssl
from collections.abc import Sequence

NO_CHECK_TIME = 0x200000
"""``X509_V_FLAG_NO_CHECK_TIME`` of OpenSSL, for which Python has no name."""

_END = "-----END CERTIFICATE-----"


def first_certificate(text: str) -> str:
    """Return the first certificate of a PEM file's text; "" if there is none."""
    begin, end = text.find("-----BEGIN CERTIFICATE-----"), text.find(_END)
    return f"{text[begin : end + len(_END)]}\n" if 0 <= begin < end else ""


def pinned(certificates: Sequence[str]) -> ssl.SSLContext:
    """Return what connects to a server that shows one of these PEM certificates.

    No authority is trusted, so names are not compared. Dates are not checked: an
    expired certificate is still the proxy's. Raises `ssl.SSLError` if one is damaged.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    # PARTIAL_CHAIN: a certificate is trusted by itself, without its authority.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
    context.load_verify_locations(cadata="".join(certificates))
    return context


def unchecked() -> ssl.SSLContext:
    """Return what connects to any server: for what is no secret, on this machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
