"""Build the user data of an instance's first boot: cloud-config, packed for the API."""

import base64
import gzip
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ollama_proxy.backends.exoscale.drivers import DriverRule
from ollama_proxy.base.errors import SpecError
from ollama_proxy.fleet.templates import ollama_env, render, source
from ollama_proxy.upstream.certificates import Certificate

LIMIT = 32767
"""Characters of base64 that Exoscale's own tools send at most."""

_OLLAMA_PORT = 11434
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,199}")
_MODELS = 8


@dataclass(frozen=True, slots=True)
class Installation:
    """Says what an instance gets installed; ``driver`` is None without GPUs.

    ``sha256``: of Ollama's archive; if empty, the release's own list is used.
    ``models``: pulled while the driver is installed.
    """

    ollama_version: str
    driver: DriverRule | None = None
    engine: str = "native"
    sha256: str = ""
    models: Collection[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def variables(self) -> str:
        """Return the lines that the installation reads, each a shell assignment.

        No value needs more than quotes: models with other names are left out, and
        pulled by the proxy later.
        """
        driver = self.driver or DriverRule((), 0, 0)
        models = [name for name in self.models if _PLAIN.fullmatch(name)]
        values = {
            "ENGINE": self.engine,
            "OLLAMA_VERSION": self.ollama_version,
            "OLLAMA_SHA256": self.sha256,
            "DRIVER_KINDS": " ".join(driver.kinds),
            "DRIVER_LEAST": driver.least,
            "DRIVER_MOST": driver.most,
            "MODELS": " ".join(models[:_MODELS]),
        }
        return "".join(f"{name}='{value}'\n" for name, value in values.items())


def cloud_config(
    certificate: Certificate,
    installation: Installation,
    *,
    token: str,
    dead_man_s: float,
) -> str:
    """Return the cloud-config of one launch."""
    return render(
        "exoscale.yaml",
        script=lambda name: json.dumps(source(f"exoscale/{name}")),
        certificate=certificate.certificate,
        key=certificate.key,
        token=token,
        ollama_env=ollama_env(
            host="127.0.0.1", port=_OLLAMA_PORT, given=installation.environment
        ),
        install_env=installation.variables(),
        dead_man_s=str(round(dead_man_s)),
    )


def user_data(
    certificate: Certificate,
    installation: Installation,
    *,
    token: str,
    dead_man_s: float,
    limit: int = LIMIT,
) -> str:
    """Return the cloud-config as the API expects it: gzip, then base64.

    Raises `SpecError` if it has more than ``limit`` characters.
    """
    text = cloud_config(certificate, installation, token=token, dead_man_s=dead_man_s)
    packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    if len(packed) > limit:
        raise SpecError(
            f"the instance's start-up data is {len(packed)} characters long, Exoscale "
            f"takes {limit}; report this as a defect"
        )
    return packed
