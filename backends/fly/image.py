"""Check an image for Fly: whether Fly can read its registry, and its size.

Sources: Fly's guide to its registry ("images from the Fly.io registry or public
registries"), and the limit of 8 GB of a machine's root file system.
"""

from ollama_proxy.backends.base.image_registry import Image, look_at, parse_reference
from ollama_proxy.base.errors import (
    CredentialsError,
    SpecError,
    TransientError,
)

_OWN_REGISTRY = "registry.fly.io"
_GIB = 1 << 30
_MOST_GIB = 8.0 * 1e9 / _GIB
_LIKELY_RATIO = 2.0  # unpacked to compressed, at least
_TO_MEASURE = "`docker image inspect -f '{{.Size}}' IMAGE` tells it where it was built"


def is_own(image: str) -> bool:
    """Tell whether an image is in Fly's own registry, which Fly reads as its app."""
    return parse_reference(image).host == _OWN_REGISTRY


def how_to_push(image: str) -> str:
    """Return what to type now that the app, and so its registry, is there."""
    return (
        "unless the image is there already, push it now: `fly auth docker`, then"
        f" `docker push {image}`"
    )


async def pinned(image: str) -> str:
    """Return an image with its digest, if its registry shows it anonymously.

    Raises `SpecError` for what Fly can't run: an image without the guard, too large, or
    in a private registry.
    """
    name, _, digest = image.partition("@")
    try:
        found = await examined(image)
    except TransientError:
        return image  # the registry may work again when the machine is made
    if found is None or digest:
        return image
    return f"{name}@{found.digest}"


async def examined(image: str) -> Image | None:
    """Return the image that Fly will run; None for one that only Fly itself can read.

    Raises `SpecError` as `pinned` does.
    """
    try:
        found = await look_at(image)
    except (CredentialsError, SpecError) as error:
        if is_own(image):
            return None
        if isinstance(error, SpecError):
            raise
        raise SpecError(
            f"{error}; Fly reads public registries and its own, and takes no"
            f" credentials for others: push it to {_OWN_REGISTRY}/APP:TAG"
        ) from error
    fetched = found.size / _GIB
    if fetched > _MOST_GIB:
        raise SpecError(
            f"{image!r} has {fetched:.1f} GiB compressed, and Fly takes 8 GB unpacked;"
            " build it with ACCELERATOR=none and fewer models"
        )
    if not found.is_guarded:
        raise SpecError(
            f"{image!r} is not built from cloud-init/container, so Ollama would be open"
            " to everybody; see docs/fly.md"
        )
    return found


def size_words(image: Image) -> str:
    """Return how large an image is, and what its registry does not tell."""
    fetched = image.size / _GIB
    told = (
        f"{fetched:.1f} GiB compressed; its size unpacked, for which Fly's limit is"
        f" 8 GB, no registry tells: {_TO_MEASURE}"
    )
    if fetched * _LIKELY_RATIO > _MOST_GIB:
        return f"{told}; it is probably too large"
    return told
