"""Beats as agents send them."""

import json
from typing import Any

BOOT = "0123456789abcdef" * 2


def old_beat(node_id: str = "box", **changed: Any) -> dict[str, Any]:
    """Return a beat as the former agent sends it: forerunners.md E."""
    return {
        "node_id": node_id,
        "ipv4": "192.168.1.20",
        "ipv6": None,
        "port": 8001,
        "models": ["qwen2.5:7b", "llama3"],
        "metadata": {"hostname": "box.lan"},
        "load": {"cpu": 0.25, "memory": 0.5},
        **changed,
    }


def entry(name: str, **changed: Any) -> dict[str, Any]:
    """Return a model as ``/api/tags`` lists it."""
    return {
        "name": name,
        "model": name,
        "modified_at": "2026-11-01T10:00:00Z",
        "size": 4_683_087_332,
        "digest": "845dbda0ea48ed749caafd9e6037047aa19acfcfd82e704d7ca97d631a0b697e",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "qwen2",
            "families": ["qwen2"],
            "parameter_size": "7.6B",
            "quantization_level": "Q4_K_M",
        },
        **changed,
    }


def agent_part(seq: int = 1, boot_id: str = BOOT, **changed: Any) -> dict[str, Any]:
    """Return what only our agent tells."""
    return {
        "boot_id": boot_id,
        "seq": seq,
        "scheme": "http",
        "version": "1.0.0",
        "ollama": "0.33.0",
        "models": [entry("qwen2.5:7b"), entry("llama3:latest")],
        "loaded": [
            {
                "name": "llama3:latest",
                "size": 5_000_000_000,
                "size_vram": 5_000_000_000,
                "expires_at": "2026-11-29T21:00:00Z",
            }
        ],
        "slots": 4,
        "in_flight": 1,
        "gpus": [{"name": "L4", "use": 0.5, "memory_used": 1, "memory_total": 2}],
        "draining": False,
        "fault": "",
        "labels": {"site": "home"},
        "disk_free": 10**11,
        **changed,
    }


def our_beat(node_id: str = "box", seq: int = 1, **changed: Any) -> dict[str, Any]:
    """Return a beat as our agent sends it; ``changed``: keys of its part ``agent``."""
    return old_beat(node_id, agent=agent_part(seq, **changed))


def sent(beat: object) -> bytes:
    """Return the body of a beat."""
    return json.dumps(beat).encode()
