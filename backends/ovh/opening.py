"""Open the driver of a region: the API with a token, else OVH's own program."""

from collections.abc import Mapping
from pathlib import Path

from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.ovh.cli import CliDriver
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.backends.ovh.rest import RestDriver
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.base.environment import home_folder
from ollama_proxy.base.errors import CredentialsError


def open_driver(
    settings: OvhSettings,
    state_dir: Path,
    environment: Mapping[str, str],
    region: str,
    *,
    timing: CloudTiming = STANDARD,
) -> Driver:
    """Open the driver of a region; raises `CredentialsError` without a token."""
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
        home=state_dir / "ovhai" / region,
        template=home_folder(environment),
        environment=environment,
        username=settings.username,
        password=password.get_secret_value() if password is not None else None,
        timing=timing,
    )
