"""Make what serves TLS handshakes, before it has a certificate to show."""

import ssl


def server_context() -> ssl.SSLContext:
    """Return a context without a certificate: TLS 1.2 or later, HTTP/1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that renegotiates costs it little and us much; no HTTP client needs it.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context
