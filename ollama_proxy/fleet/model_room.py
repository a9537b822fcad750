"""Compare models with the disk, memory and GPU memory of an instance, for ``check``.

Pure. A known size that does not fit is a fault. A size estimated from a name is only a
warning, and so is a model larger than the GPU's memory: it answers slowly.
"""

from collections.abc import Mapping, Sequence

from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.fleet.backend import Finding, Traits
from ollama_proxy.fleet.memory_estimate import needed_gb, weights_gb

_GIB = 1 << 30


def room_findings(
    models: Sequence[str], traits: Traits, sizes: Mapping[str, int]
) -> list[Finding]:
    """Tell what the models want of what there is; ``sizes`` in bytes, if known."""
    names = [full_model_name(model) for model in models]
    findings = []
    if traits.models_gib is not None and names:
        findings.append(_on_disk(names, traits.models_gib, sizes))
    for name in names:
        needed = needed_gb(name, sizes.get(name))
        if traits.memory_gb is not None:
            findings.append(_in_memory(name, needed, traits.memory_gb))
        if traits.gpu_memory_gb and needed is not None:
            findings.append(_on_gpu(name, needed, traits.gpu_memory_gb))
    return findings


def _on_disk(names: Sequence[str], room_gib: int, sizes: Mapping[str, int]) -> Finding:
    known = sum(sizes.get(name, 0) for name in names)
    guesses = {name: weights_gb(name) for name in names if not sizes.get(name)}
    unknown = [name for name, guess in guesses.items() if guess is None]
    guessed = {name: guess for name, guess in guesses.items() if guess is not None}
    total_gib = (known + sum(guessed.values()) * 10**9) / _GIB
    about = "about " if guessed else ""
    told = f"models {about}{total_gib:.1f} GiB, room for {room_gib}"
    if guessed:
        told += f"; estimated from the name: {', '.join(guessed)}"
    if unknown:
        told += f"; not known before an instance has had them: {', '.join(unknown)}"
    fits = known / _GIB <= room_gib
    warns = fits and total_gib > room_gib
    if not fits or warns:
        told += "; take a larger disk or smaller models"
    return Finding("disk and models", ok=fits, detail=told, warns=warns)


def _in_memory(name: str, needed: float | None, memory_gb: float) -> Finding:
    wants = "unknown" if needed is None else f"about {needed:.1f} GB"
    told = f"{name} wants {wants}, the machine has {memory_gb:.1f}"
    fits = needed is None or needed <= memory_gb
    return Finding("memory and model", ok=fits, detail=told)


def _on_gpu(name: str, needed: float, gpu_gb: float) -> Finding:
    told = f"{name} wants about {needed:.1f} GB, the GPU memory is {gpu_gb:.0f} GB"
    warns = needed > gpu_gb
    if warns:
        told += (
            f"; about {1 - gpu_gb / needed:.0%} of it would be left to the CPU and"
            " answer slowly: take a type with more, or a smaller model"
        )
    return Finding("GPU memory and model", ok=True, detail=told, warns=warns)
