"""Bodies of ``/status`` as a proxy gives them, with changes."""

from typing import Any


def instance(**fields: Any) -> dict[str, Any]:
    """Return an entry of ``instances`` that is ready and idle."""
    return {
        "slot": "default/0/fast",
        "offer": "fast",
        "backend": "fly",
        "state": "ready",
        "stage": None,
        "detail": None,
        "launch_id": "l1",
        "url": "https://a.example",
        "in_flight": 0,
        "slots": 4,
        "progress": None,
        "eta_s": None,
        "idle_for_s": 60.0,
        "stops_in_s": 200.0,
        "leaving": False,
        "failures": 0,
        "error": None,
        "report": None,
        **fields,
    }


def offer(**fields: Any) -> dict[str, Any]:
    """Return an entry of ``offers`` that is open."""
    return {
        "name": "fast",
        "backend": "fly",
        "slots": 4,
        "price_per_hour": 1.25,
        "currency": "USD",
        "state": "open",
        "reason": None,
        "since_s": None,
        "ends_in_s": None,
        **fields,
    }


def pool(*instances: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return an entry of ``pools``."""
    return {
        "name": "default",
        "models": ["llama3.2"],
        "serves": ["*"],
        "in_flight": 2,
        "waiting": 3,
        "ready": 1,
        "wanted": 1,
        "plan": ["nothing waits"],
        "offers": [offer()],
        "instances": list(instances),
        **fields,
    }


def status(*pools: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the body of ``/status``, with what the page reads of it."""
    return {
        "version": "1.2.3",
        "backend": "fly",
        "provisioning_status": "ready",
        "stage": None,
        "detail": None,
        "simulated": False,
        "pulls": [],
        "lost_models": [],
        "gpu": None,
        "price": None,
        "others": [],
        "tls": None,
        "access": {"needs_key": True, "warning": None},
        "keys_file": None,
        "error": None,
        "report": None,
        "launches_unserved": 0,
        "launch_limit": None,
        "lockout": None,
        "pools": list(pools) or [pool(instance())],
        **fields,
    }
