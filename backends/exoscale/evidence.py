"""Collect a report on an instance that will not serve.

Exoscale has no text console and no log of an instance. The report consists of the
operation that created it, its events of the last 24 h (both by the published
description of the API), and of files on the instance itself once its guard answers.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from ollama_proxy.backends.base.guard_client import FAILED, GuardClient
from ollama_proxy.backends.base.provisioning_journal import ProvisioningRecord
from ollama_proxy.backends.boot_report import readable, telling_line
from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.instances import Instance, read_instance
from ollama_proxy.backends.exoscale.making import read_making
from ollama_proxy.base.errors import BackendError, TransientError
from ollama_proxy.core.lifecycle.boot_stages import GUEST_STEPS
from ollama_proxy.fleet.backend import Upstream

UNHEARD = (
    "nothing can be fetched from the instance before its guard answers, which follows "
    "the first boot, the lists of packages and the installation of Caddy"
)
"""Shown for an instance whose guard has not answered."""

_SENTENCES = {"disk": "the instance's disk is full; raise EXOSCALE_DISK_SIZE"}
_EVENTS = 20
_FEW_EVENTS = 8
_WORDS = 300
_LINES = 40


async def step_report(
    guard: GuardClient, upstream: Upstream, step: str, token: str
) -> tuple[str, str]:
    """Return why a step failed, in a sentence, and its last lines.

    ``token``: of the launch; it is masked.
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
    api: ExoscaleApi,
    instance: Instance,
    told: str,
    *,
    heard: bool,
    most_events: int = _EVENTS,
) -> str:
    """Return what Exoscale shows about an instance, line by line.

    ``told``: the operation that created it. ``heard``: its guard has answered once.
    Only known keys are shown, because user data, with a key in it, is part of events
    and instances.
    """
    shown = f"instance {instance.id} in {api.zone}: state {instance.state!r}"
    created = f", made {instance.created_at}" if instance.created_at else ""
    events = await _events(api, instance, most_events)
    lines = [shown + created, *([told] if told else []), *events]
    if not heard:
        lines.append(UNHEARD)
    return "\n".join(lines)


async def given_up_report(
    api: ExoscaleApi,
    guard: GuardClient,
    record: ProvisioningRecord,
    *,
    name: str,
    upstream: Upstream | None,
    token: str,
    part_s: float,
) -> str:
    """Return a report on a launch that took too long, in 40 lines.

    ``name``: of its instance, whose id is unknown if the answer to its purchase was
    lost. ``upstream``: where its guard answered, if it did. Both sources are queried at
    once; one that does not answer within ``part_s`` is left out.
    """
    parts: list[Awaitable[str]] = [_cloud_part(api, record, name, upstream)]
    if upstream is not None:
        parts.append(_guest_part(guard, upstream, token))
    told = await asyncio.gather(*(_within(part_s, part) for part in parts))
    head = told[0].splitlines()
    tail = [line for part in told[1:] for line in part.splitlines()]
    left = _LINES - len(head)
    return "\n".join([*head, *(tail if len(tail) <= left else tail[-left:])])


async def _within(part_s: float, part: Awaitable[str]) -> str:
    try:
        async with asyncio.timeout(part_s):
            return await part
    except TimeoutError:
        return f"what else there is did not come within {part_s:.0f} s"
    except BackendError as error:
        return f"what else there is could not be fetched: {error}"


async def _cloud_part(
    api: ExoscaleApi, record: ProvisioningRecord, name: str, upstream: Upstream | None
) -> str:
    if record.instance_id is None:
        lost = f"no list of {api.zone} shows {name!r}: the answer to its purchase"
        events = await _events(api, Instance("", name), _FEW_EVENTS)
        return "\n".join([f"{lost} was lost", *events])
    instance = read_instance(await api.call("get_instance", id=record.instance_id))
    told = ""
    if record.operation_id is not None:
        made = await api.call("get_operation", id=record.operation_id)
        told = read_making(made, record.placement).told
    heard = upstream is not None
    return await cloud_report(api, instance, told, heard=heard, most_events=_FEW_EVENTS)


async def _guest_part(guard: GuardClient, upstream: Upstream, token: str) -> str:
    """Return the step of a boot, the durations of its steps, and this one's log."""
    sight = await guard.look(upstream)
    if sight.stage is None:
        return f"the instance does not answer any more: {sight.problem}"
    step = sight.stage.removeprefix(FAILED)
    spans = await guard.spans(upstream)
    took = ", ".join(f"{one.name} {one.seconds:.0f} s" for one in spans)
    head = f"its boot is at {sight.stage!r}" + (f"; over are: {took}" if took else "")
    if step not in GUEST_STEPS:
        return head
    try:
        said = readable(await guard.log_of(upstream, step), {token})
    except TransientError as error:
        return f"{head}\nthe step's log could not be fetched: {error}"
    lines = said.splitlines()[-(_LINES - _FEW_EVENTS - 4) :]
    return "\n".join([head, *(lines or ["the step has no output yet"])])


async def _events(api: ExoscaleApi, instance: Instance, most: int) -> list[str]:
    try:
        answer = await api.call("list_events")
    except BackendError as error:
        return [f"Exoscale's events could not be read: {error}"]
    events = [event for event in answer or () if _is_about(event, instance)]
    if not events:
        return ["Exoscale's events of the last 24 h name it nowhere"]
    events.sort(key=lambda event: str(event.get("timestamp") or ""))
    return [_event_line(event) for event in events[-most:]]


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
