"""Open the certificate that the settings name, for `serve` and `check`."""

from collections.abc import Callable

from ollama_proxy.base.errors import StartupError
from ollama_proxy.config.settings import Settings
from ollama_proxy.server.tls.certificate import CertificateError, CertificateFiles
from ollama_proxy.server.tls.watch import ServerCertificate


def open_certificate(
    settings: Settings, wall: Callable[[], float]
) -> ServerCertificate | None:
    """Return the certificate that clients get; None without one in the settings.

    ``wall`` returns the date. Raises `StartupError` if it can't be used.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = CertificateFiles(settings.tls_cert, settings.tls_key)
    try:
        return ServerCertificate(files, wall)
    except CertificateError as error:
        raise StartupError(str(error)) from error
