"""Open OVH's backend from its settings, and the driver of a region."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ollama_proxy.backends.base.provisioning_journal import ProvisioningJournal
from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.ovh.backend import OvhBackend
from ollama_proxy.backends.ovh.cli import CliDriver
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.backends.ovh.rest import RestDriver
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.base.environment import home_folder
from ollama_proxy.base.errors import CredentialsError, SettingsError
from ollama_proxy.fleet.backend import BackendContext
from ollama_proxy.upstream.certificates import Authority


def open_backend(
    context: BackendContext, *, poll_s: float = 5.0, timing: CloudTiming = STANDARD
) -> OvhBackend:
    """Build the backend from the settings ``ovh``.

    ``poll_s``: pause between two looks.
    """
    settings = context.options.get("ovh")
    if not isinstance(settings, OvhSettings):
        raise SettingsError(["ovh: the backend 'ovh' needs its settings"])
    if faults := settings.faults():
        raise SettingsError(faults)
    lifetime = context.options.get("max_lifetime")
    return OvhBackend(
        settings,
        owner_id=context.owner_id,
        remembers=context.remembers,
        journal=ProvisioningJournal(context.notes, context.clock.now()),
        authority=Authority(context.state_dir / "authority", context.clock),
        clock=context.clock,
        driver_of=partial(
            open_driver,
            settings,
            _logins(context),
            context.environment,
            timing=timing,
        ),
        max_lifetime_s=lifetime if isinstance(lifetime, float) else None,
        poll_s=poll_s,
        timing=timing,
        environment=context.instance_environment,
        offer=context.offer,
    )


def _logins(context: BackendContext) -> Path:
    """Return the folder of the program's log-ins: each offer may have its own."""
    folder = context.state_dir / "ovhai"
    return folder / "offers" / context.offer.name if context.offer.name else folder


def open_driver(
    settings: OvhSettings,
    logins: Path,
    environment: Mapping[str, str],
    region: str,
    *,
    timing: CloudTiming = STANDARD,
) -> Driver:
    """Open the driver of a region: the API with a token, else OVH's own program.

    Raises `CredentialsError` without a token.
    """
    if settings.speaks_rest:
        token = settings.api_token(region)
        if token is None:
            raise CredentialsError(
                f"there is no token for {region}; set OVH_AI_REGION_TOKENS={region}=…"
            )
        setting = settings.api_token_setting(region)
        return RestDriver(
            region,
            url=settings.url_of(region),
            token=token,
            setting=setting,
            timing=timing,
        )
    password = settings.password
    return CliDriver(
        region,
        program=settings.ovhai_bin,
        home=logins / region,
        template=home_folder(environment),
        environment=environment,
        username=settings.username,
        password=password.get_secret_value() if password is not None else None,
        timing=timing,
    )
