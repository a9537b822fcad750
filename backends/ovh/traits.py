"""Tell what the proxy may expect of AI Deploy's apps, by their settings and image."""

from ollama_proxy.backends.ovh.cards import gpus_of
from ollama_proxy.backends.ovh.provisioner import Provisioner
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.fleet.backend import Traits


def traits_of(
    settings: OvhSettings, provisioner: Provisioner, *, poll_s: float
) -> Traits:
    """Return the traits of the backend; ``poll_s``: the pause between two looks."""
    gpus = gpus_of(settings.flavor, settings.gpu_model, settings.gpu_count)
    return Traits(
        starts_empty=settings.volume is None,
        models_place=f"{settings.region} {settings.volume or provisioner.image}",
        poll_s=poll_s,
        watch_s=30.0,
        renew_s=60.0,
        location=settings.region,
        instance_type=settings.flavor or settings.gpu_model,
        spec=provisioner.spec,
        alternatives=settings.fallback_regions,
        gpus=gpus and gpus[0],
        gpu_memory_gb=gpus and gpus[1],
    )
