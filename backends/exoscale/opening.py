"""Open Exoscale's backend from its settings, and the API of a zone."""

import asyncio
from functools import partial

from ollama_proxy.backends.base.provisioning_journal import ProvisioningJournal
from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.exoscale.advice import values_of
from ollama_proxy.backends.exoscale.api import ENDPOINT, ExoscaleApi
from ollama_proxy.backends.exoscale.backend import ExoscaleBackend
from ollama_proxy.backends.exoscale.security_group import PORT
from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.backends.patience import Sleep
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.fleet.backend import BackendContext
from ollama_proxy.upstream.certificates import Authority


def open_backend(
    context: BackendContext,
    *,
    port: int = PORT,
    poll_s: float = 5.0,
    sleep: Sleep = asyncio.sleep,
    timing: CloudTiming = STANDARD,
) -> ExoscaleBackend:
    """Build the backend from the settings ``exoscale``.

    ``port``: where guards listen. ``poll_s``: pause between two looks. ``sleep``: waits
    as long as the API demands.
    """
    settings = context.options.get("exoscale")
    if not isinstance(settings, ExoscaleSettings) or not settings.has_credentials:
        raise SettingsError(
            ["EXOSCALE_API_KEY, EXOSCALE_API_SECRET: the backend 'exoscale' needs both"]
        )
    models = context.options.get("models")
    return ExoscaleBackend(
        settings,
        owner_id=context.owner_id,
        remembers=context.remembers,
        journal=ProvisioningJournal(context.notes, context.clock.now()),
        authority=Authority(context.state_dir / "authority", context.clock),
        clock=context.clock,
        api_of=partial(
            open_api, settings, clock=context.clock, sleep=sleep, timing=timing
        ),
        port=port,
        poll_s=poll_s,
        models=models if isinstance(models, tuple) else (),
        timing=timing,
        environment=context.instance_environment,
        offer=context.offer,
    )


def open_api(
    settings: ExoscaleSettings,
    zone: str,
    *,
    clock: Clock,
    sleep: Sleep,
    timing: CloudTiming,
) -> ExoscaleApi:
    """Open the API of a zone with the key of the settings, which have one."""
    key, secret = settings.api_key, settings.api_secret
    assert key is not None  # noqa: S101 - has_credentials
    assert secret is not None  # noqa: S101 - has_credentials
    return ExoscaleApi(
        zone,
        endpoint=settings.api_endpoint or ENDPOINT,
        key=key,
        secret=secret.get_secret_value(),
        clock=clock,
        sleep=sleep,
        values=values_of(settings),
        timing=timing,
    )
