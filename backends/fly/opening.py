"""Open Fly's backend from its settings."""

import asyncio

from ollama_proxy.backends.base.provisioning_journal import ProvisioningJournal
from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.backend import FlyBackend
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.backends.patience import Sleep
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.fleet.backend import BackendContext
from ollama_proxy.upstream.certificates import Authority


def open_backend(
    context: BackendContext,
    *,
    poll_s: float = 3.0,
    sleep: Sleep = asyncio.sleep,
    timing: CloudTiming = STANDARD,
) -> FlyBackend:
    """Build the backend from the settings ``fly``.

    ``poll_s``: pause between two looks. ``sleep``: waits when Fly limits calls.
    """
    settings = context.options.get("fly")
    if not isinstance(settings, FlySettings):
        raise SettingsError(["fly: the backend 'fly' needs its settings"])
    token, app = settings.api_token, settings.app
    if (faults := settings.faults()) or token is None or app is None:
        raise SettingsError(faults)
    lifetime = context.options.get("max_lifetime")
    return FlyBackend(
        settings,
        api=FlyApi(
            app,
            url=settings.api_url,
            token=token.get_secret_value(),
            clock=context.clock,
            sleep=sleep,
            timing=timing,
        ),
        owner_id=context.owner_id,
        remembers=context.remembers,
        journal=ProvisioningJournal(context.notes, context.clock.now()),
        authority=Authority(context.state_dir / "authority", context.clock),
        clock=context.clock,
        max_lifetime_s=lifetime if isinstance(lifetime, float) else None,
        poll_s=poll_s,
        timing=timing,
        environment=context.instance_environment,
    )
