"""Tell what the proxy may expect of Exoscale's instances, by their settings."""

from ollama_proxy.backends.exoscale.cards import least_gpus
from ollama_proxy.backends.exoscale.choices import SYSTEM_GIB
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.fleet.backend import Traits


def traits_of(settings: ExoscaleSettings, *, poll_s: float) -> Traits:
    """Return the traits of the backend; ``poll_s``: the pause between two looks."""
    gpus = least_gpus(settings.instance_types)
    return Traits(
        starts_empty=settings.idle_action == "destroy",
        models_place=f"{settings.zone} {settings.template}",
        poll_s=poll_s,
        watch_s=30.0,
        renew_s=60.0,
        location=settings.zone,
        instance_type=settings.instance_type,
        alternatives=(*settings.fallback_types, *settings.fallback_zones),
        models_gib=settings.disk_size - SYSTEM_GIB[settings.engine],
        gpus=gpus and gpus[0],
        gpu_memory_gb=gpus and gpus[1],
    )
