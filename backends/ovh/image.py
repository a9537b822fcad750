"""Check which images an app may be made of."""

from ollama_proxy.backends.base.image_registry import Image, look_at
from ollama_proxy.base.errors import SpecError


async def look_at_guarded(name: str) -> Image:
    """Read an image's description from its registry; raises as `look_at` does.

    Also raises `SpecError` for an image that can't run as AI Deploy's user 42420 behind
    its guard.
    """
    image = await look_at(name)
    if not image.is_guarded:
        raise SpecError(
            f"{name!r} is not built from cloud-init/container, so no guard would be"
            " before its Ollama and none would tell AI Deploy whether it is wanted;"
            " build it from there: see docs/ovh.md"
        )
    return image
