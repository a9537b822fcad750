"""What there is to read of an instance that will not serve.

Exoscale shows no console in words and keeps no log of an instance. What it tells is in
the operation that made it, in its events of the last 24 h (both by the published
description of the API), and on the instance itself once its guard answers.
"""

from collections.abc import Mapping
from typing import Any

from ollama_proxy.backends.boot_report import readable, telling_line
from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.instances import Instance
from ollama_proxy.backends.guard import GuardClient
from ollama_proxy.base.errors import BackendError, TransientError
from ollama_proxy.fleet.backend import Upstream

UNHEARD = (
    "nothing can be fetched from the instance before its guard answers, which follows "
    "the first boot, the lists of packages and the installation of Caddy"
)
"""What is said of an instance whose guard was not heard yet, or never."""

_SENTENCES = {"disk": "the instance's disk is full; raise EXOSCALE_DISK_SIZE"}
_EVENTS = 20
_WORDS = 300


async def step_report(
    guard: GuardClient, upstream: Upstream, step: str, token: str
) -> tuple[str, str]:
    """Return why a step failed, in a sentence, and its last lines.

    ``token`` is that of the launch, which is told to nobody.
    """
    sentence = _SENTENCES.get(step, f"the instance could not set up its {step}")
    try:
        report = readable(await guard.report(upstream), {token})
    except TransientError as error:
        return sentence, f"the last lines of {step!r} could not be fetched: {error}"
    if not report:
        return sentence, f"the step {step!r} left no lines"
    return f"{sentence}: {telling_line(report)}", report


async def cloud_report(
    api: ExoscaleApi, instance: Instance, told: str, *, heard: bool
) -> str:
    """Return what Exoscale says of an instance, line by line.

    ``told`` is the operation that made it; ``heard``: its guard has answered once.
    User data is in events and instances: it holds a key, so only known keys are shown.
    """
    shown = f"instance {instance.id} in {api.zone}: state {instance.state!r}"
    created = f", made {instance.created_at}" if instance.created_at else ""
    lines = [shown + created, *([told] if told else []), *await _events(api, instance)]
    if not heard:
        lines.append(UNHEARD)
    return "\n".join(lines)


async def _events(api: ExoscaleApi, instance: Instance) -> list[str]:
    try:
        answer = await api.call("list_events")
    except BackendError as error:
        return [f"Exoscale's events could not be read: {error}"]
    events = [event for event in answer or () if _is_about(event, instance)]
    if not events:
        return ["Exoscale's events of the last 24 h name it nowhere"]
    events.sort(key=lambda event: str(event.get("timestamp") or ""))
    return [_event_line(event) for event in events[-_EVENTS:]]


def _is_about(event: Mapping[str, Any], instance: Instance) -> bool:
    """Tell whether an event is about an instance: its maker's has only the name."""
    params = event.get("path-params") or {}
    body = event.get("body-params") or {}
    named = bool(instance.name) and body.get("name") == instance.name
    return instance.id in map(str, params.values()) or named


def _event_line(event: Mapping[str, Any]) -> str:
    known = ("timestamp", "handler", "status", "message", "request-id")
    words = [str(event[key]) for key in known if event.get(key)]
    return f"event {' '.join(' '.join(words).split())[:_WORDS]}"
