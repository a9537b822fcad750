"""Tell what the proxy may expect of Fly's machines, by their settings and image."""

from ollama_proxy.backends.fly.provisioner import Provisioner
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.fleet.backend import Traits

_ROOT_GIB = 8  # Fly's limit for the root file system, image included


def traits_of(
    settings: FlySettings, provisioner: Provisioner, *, poll_s: float
) -> Traits:
    """Return the traits of the backend; ``poll_s``: the pause between two looks."""
    disk = "volume" if settings.volume_gb else provisioner.image
    return Traits(
        starts_empty=not settings.keeps_disk,
        models_place=f"{settings.app} {settings.region} {disk}",
        poll_s=poll_s,
        watch_s=30.0,
        renew_s=60.0,
        location=settings.region,
        instance_type=settings.size,
        alternatives=settings.fallback_regions,
        models_gib=settings.volume_gb or _ROOT_GIB,
        memory_gb=settings.guest.memory_mb * (1 << 20) / 1e9,
        gpus=0,
        spec=provisioner.spec,
    )
