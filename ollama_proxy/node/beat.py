"""Compose a beat: the keys of the former agent, and ours under one of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ollama_proxy import __version__
from ollama_proxy.node.listed_models import bounded
from ollama_proxy.node.local_ollama import OllamaState
from ollama_proxy.node.machine import Gpu, Load


@dataclass(frozen=True, slots=True)
class Facts:
    """Holds a whole snapshot of a node.

    ``seq`` counts the beats of one process, ``boot_id`` names the process. ``slots``:
    how many requests Ollama works on at a time, if a setting says so. ``disk_free``:
    bytes that models may still take, if that is known.
    """

    node_id: str
    host_name: str
    ipv4: str | None
    ipv6: str | None
    port: int
    boot_id: str
    seq: int
    load: Load
    gpus: Sequence[Gpu]
    ollama: OllamaState
    slots: int | None
    in_flight: int
    is_draining: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    disk_free: int | None = None
    scheme: str = "http"
    pulling: Mapping[str, Any] | None = None


def former_beat(facts: Facts) -> dict[str, Any]:
    """Return the keys that the former hub knows.

    It knows no draining: a node without models is chosen for nothing.
    """
    models = [] if facts.is_draining else [one.name for one in facts.ollama.models]
    return {
        "node_id": facts.node_id,
        "ipv4": facts.ipv4,
        "ipv6": facts.ipv6,
        "port": facts.port,
        "models": models,
        "metadata": {"hostname": facts.host_name},
        "load": {"cpu": facts.load.cpu, "memory": facts.load.memory},
    }


def whole_beat(facts: Facts) -> dict[str, Any]:
    """Return the former keys, and ours under ``agent``: one key to be ignored."""
    ollama = facts.ollama
    return former_beat(facts) | {
        "agent": {
            "boot_id": facts.boot_id,
            "seq": facts.seq,
            "scheme": facts.scheme,
            "version": __version__,
            "ollama": ollama.version,
            "models": bounded(ollama.models),
            "loaded": [msgspec.to_builtins(one) for one in ollama.loaded],
            "slots": facts.slots,
            "in_flight": facts.in_flight,
            "gpus": [gpu.told() for gpu in facts.gpus],
            "draining": facts.is_draining,
            "fault": ollama.fault,
            "labels": facts.labels,
            "disk_free": facts.disk_free,
            "pulling": facts.pulling,
        }
    }
