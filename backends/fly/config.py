"""Build the configuration of a machine as the API wants it: pure, always the same."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ollama_proxy.backends.fly.settings import FlySettings

PORT = 8080
"""Where the guard of the image listens."""

_MODELS = "/models"
_IDLE_S = 3600  # the edge closes a stream after a minute without a byte


def machine_config(
    settings: FlySettings,
    image: str,
    *,
    token: str,
    metadata: Mapping[str, str],
    volume: str | None,
    max_lifetime_s: float,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """Return what a machine is made of; ``token`` is what its guard wants."""
    suspends = settings.idle_action == "suspend"
    config = _fixed(settings, image) | {"metadata": dict(metadata)}
    config["env"] = {
        **environment,
        "PORT": str(PORT),
        "GUARD_TOKEN": token,
        "DEAD_MAN": "exit",
        "DEAD_MAN_S": f"{settings.dead_man_timeout:.0f}",
        # A suspended machine keeps the time of earlier launches, so the proxy counts.
        "MAX_LIFETIME_S": "0" if suspends else f"{max_lifetime_s:.0f}",
    }
    if volume is not None:
        config["mounts"] = [{"volume": volume, "path": _MODELS}]
        config["env"]["OLLAMA_MODELS"] = _MODELS
    return config


def spec_of(
    settings: FlySettings,
    image: str | None,
    max_lifetime_s: float,
    environment: Mapping[str, str],
) -> str:
    """Return a mark that changes with what a machine is made of."""
    parts = [
        _fixed(settings, image or ""),
        settings.volume_gb > 0,
        settings.dead_man_timeout,
        max_lifetime_s,
        *([dict(environment)] if environment else []),
    ]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def guest_of(settings: FlySettings) -> dict[str, Any]:
    """Return CPUs and memory."""
    size = settings.guest
    return {
        "cpu_kind": size.kind,
        "cpus": size.cpus,
        "memory_mb": size.memory_mb,
    }


def _fixed(settings: FlySettings, image: str) -> dict[str, Any]:
    """Return the settings that are the same for all launches.

    A machine that ended stays ended; one for a single launch removes itself.
    """
    return {
        "image": image,
        "guest": guest_of(settings),
        "restart": {"policy": "no"},
        "auto_destroy": settings.idle_action == "destroy",
        "stop_config": {"signal": "SIGTERM", "timeout": "30s"},
        "services": [] if settings.access == "6pn" else [_service(settings)],
    }


def _service(settings: FlySettings) -> dict[str, Any]:
    """Return how Fly's proxy reaches the guard; it never starts a machine by itself."""
    is_public = settings.access == "public"
    stops = "suspend" if settings.idle_action == "suspend" else "stop"
    port = {
        "port": 443 if is_public else 80,
        "handlers": ["tls", "http"] if is_public else ["http"],
        "http_options": {"idle_timeout": _IDLE_S},
    }
    check = {
        "type": "http",
        "method": "GET",
        "path": "/-/health",
        "interval": "10s",
        "timeout": "5s",
        "grace_period": "5s",
    }
    return {
        "protocol": "tcp",
        "internal_port": PORT,
        "ports": [port],
        "autostart": False,
        "autostop": stops if settings.autostop else "off",
        "min_machines_running": 0,
        "concurrency": {"type": "requests", "soft_limit": 1000, "hard_limit": 2000},
        "checks": [check],
    }
