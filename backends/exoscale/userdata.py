"""What an instance is told at its first boot: cloud-config, packed for the API."""

import base64
import gzip
import json

from ollama_proxy.authority import Certificate
from ollama_proxy.boot import render, source
from ollama_proxy.errors import SpecError

LIMIT = 32767
"""Characters of base64 that Exoscale's own tools send at most."""

_OLLAMA_PORT = 11434


def cloud_config(
    certificate: Certificate,
    *,
    token: str,
    driver: str | None,
    ollama_version: str,
    dead_man_s: float,
) -> str:
    """Return the cloud-config of one launch.

    ``driver`` is a branch of NVIDIA's, None for a type without GPUs.
    """
    return render(
        "exoscale.yaml",
        script=lambda name: json.dumps(source(f"exoscale/{name}")),
        certificate=certificate.certificate,
        key=certificate.key,
        token=token,
        ollama_env=render(
            "ollama.env", host="127.0.0.1", port=_OLLAMA_PORT, models_dir=None
        ),
        install_env=f"DRIVER={driver or ''}\nOLLAMA_VERSION={ollama_version}\n",
        dead_man_s=str(round(dead_man_s)),
    )


def user_data(
    certificate: Certificate,
    *,
    token: str,
    driver: str | None,
    ollama_version: str,
    dead_man_s: float,
) -> str:
    """Return the cloud-config as the API takes it: gzip, then base64.

    Raises `SpecError` if it is longer than the API allows.
    """
    text = cloud_config(
        certificate,
        token=token,
        driver=driver,
        ollama_version=ollama_version,
        dead_man_s=dead_man_s,
    )
    packed = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    if len(packed) > LIMIT:
        raise SpecError(
            f"the instance's start-up data is {len(packed)} characters long, Exoscale "
            f"takes {LIMIT}; report this as a defect"
        )
    return packed
