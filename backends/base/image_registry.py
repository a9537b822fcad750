"""Ask a registry about an image, without fetching it."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import requests
from dxf import DXF, DXFBase
from dxf.exceptions import DXFError, DXFPlatformDataNotFound

from ollama_proxy.backends.foreign_words import why_unanswered
from ollama_proxy.backends.way_out import authorities, web_proxy, why_nothing_left
from ollama_proxy.base.errors import (
    BackendError,
    CredentialsError,
    SpecError,
    TransientError,
)

GUARDED = "ollama-proxy.guard"
"""The label of images that are built from ``cloud-init/container/``."""

_PLATFORM = "linux/amd64"
_HUB = "registry-1.docker.io"
_TIMEOUT_S = 15.0
_MAX_CONFIG = 4 * 1024 * 1024
_UNREADABLE = (
    requests.RequestException,
    DXFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)
_LOCAL = ("localhost", "127.")  # which engines contact without TLS, too


@dataclass(frozen=True, slots=True)
class Reference:
    """Names where an image is: registry, repository, and its tag or digest."""

    host: str
    repository: str
    alias: str

    @property
    def is_local(self) -> bool:
        """Tell whether its registry is on this machine."""
        return self.host.startswith(_LOCAL)


@dataclass(frozen=True, slots=True)
class Image:
    """Describes an image for ``linux/amd64``; ``size``: compressed, in bytes."""

    digest: str
    size: int
    user: str
    labels: Mapping[str, str]

    @property
    def is_guarded(self) -> bool:
        """Tell whether it is built from ``cloud-init/container/``."""
        return self.labels.get(GUARDED) == "1"


def parse_reference(text: str) -> Reference:
    """Parse ``[registry/]repository[:tag][@digest]``.

    Raises `SpecError` for a name without tag and digest, whose meaning can change.
    """
    name, _, digest = text.strip().partition("@")
    head, found, rest = name.partition("/")
    if not found or not ("." in head or ":" in head or head == "localhost"):
        head, rest = _HUB, name
    repository, _, tag = rest.partition(":")
    if head == _HUB and "/" not in repository:
        repository = f"library/{repository}"
    if not repository or not (tag or digest):
        raise SpecError(
            f"the image {text!r} has no tag and no digest; write registry/name:tag"
        )
    return Reference(head, repository, digest or tag)


async def look_at(text: str) -> Image:
    """Fetch the description of an image from its registry, anonymously.

    Raises `SpecError` if it does not exist or is not for ``linux/amd64``,
    `CredentialsError` if it is private, `TransientError` otherwise.
    """
    reference = parse_reference(text)
    try:
        return await asyncio.to_thread(_look_at, reference)
    except DXFPlatformDataNotFound as error:
        raise SpecError(f"the image {text!r} is not built for {_PLATFORM}") from error
    except requests.HTTPError as error:
        raise _named(text, error) from error
    except _UNREADABLE as error:
        is_lost = isinstance(error, requests.RequestException)
        why = "what it answers is no registry's answer"
        if is_lost:
            why = why_nothing_left(error) or why_unanswered(error)
        message = (
            f"the registry of {text!r} can't be read: {why}; check the image's name and"
            " that this machine reaches the registry"
        )
        raise TransientError(message) from error


class _Registry(DXF):
    """Reaches a registry by the way out that clouds are reached by."""

    def __enter__(self) -> Self:
        super().__enter__()
        session = cast("requests.Session", self._sessions[0])
        proxy = web_proxy(f"https://{self._host}")
        session.trust_env = False  # ignore the environment's proxies and .netrc
        session.proxies = {"all": proxy} if proxy else {}
        return self


def _look_at(reference: Reference) -> Image:
    registry = _Registry(
        reference.host,
        reference.repository,
        _log_in,
        insecure=reference.is_local,
        tlsverify=authorities() or True,
        timeout=_TIMEOUT_S,
    )
    with registry:
        digest, _ = registry.head_manifest_and_response(reference.alias)
        found = registry.get_manifest(reference.alias, _PLATFORM)
        manifest = json.loads(found if isinstance(found, str) else found[_PLATFORM])
        wanted = manifest["config"]
        if wanted["size"] > _MAX_CONFIG:
            raise ValueError("the image's configuration is too large")
        blob = cast("Iterable[bytes]", registry.pull_blob(wanted["digest"]))
        told = json.loads(b"".join(blob))
    if told.get("architecture") != "amd64":
        raise SpecError(f"the image is for {told.get('architecture')}, not for amd64")
    config: dict[str, Any] = told.get("config") or {}
    return Image(
        digest=str(digest),
        size=sum(int(layer["size"]) for layer in manifest["layers"]),
        user=str(config.get("User") or "root"),
        labels=config.get("Labels") or {},
    )


def _log_in(registry: DXFBase, response: requests.Response) -> None:
    """Log in anonymously, which registries want for every request."""
    registry.authenticate(actions=["pull"], response=response)


def _named(text: str, error: requests.HTTPError) -> BackendError:
    status = error.response.status_code if error.response is not None else 0
    if status in {401, 403}:
        return CredentialsError(
            f"the image {text!r} is private, or not there; check its name"
        )
    if status == 404:  # noqa: PLR2004
        return SpecError(f"there is no image {text!r}; check its name, or push it")
    return TransientError(
        f"the registry of {text!r} answered {status}; try again later, or check the"
        " image's name"
    )
