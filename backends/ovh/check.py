"""Examine what an app would need, without making one."""

from collections.abc import Callable
from functools import partial

from ollama_proxy.backends.base.findings import Look, findings_of
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.backends.ovh.image import look_at_guarded
from ollama_proxy.backends.ovh.provisioner import flavor_in
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.backends.ovh.volume import parse_volume
from ollama_proxy.base.errors import (
    BackendError,
    CredentialsError,
    NotFoundError,
    SpecError,
)
from ollama_proxy.fleet.backend import Finding

_GIB = 1 << 30
_NO_APP = "00000000-0000-0000-0000-000000000000"


async def require(
    driver_of: Callable[[str], Driver], settings: OvhSettings, image: str
) -> None:
    """Raise what `examine` would find wrong, before anything is made."""
    await _image(image)
    for region in settings.regions:
        driver = driver_of(region)
        await flavor_in(driver, region, settings)
        await _rights(driver, region, settings)


async def examine(
    driver_of: Callable[[str], Driver], settings: OvhSettings, *, image: str | None
) -> list[Finding]:
    """Check log-in, region, flavour, image, volume and price, in that order.

    Of a fall-back region, check rights and flavour.
    """
    region = settings.region
    driver = driver_of(region)
    try:
        account = await driver.whoami()
    except BackendError as error:
        return [Finding("log-in", ok=False, detail=f"{error}{_world(region, error)}")]
    told = "the API" if settings.speaks_rest else f"`{settings.ovhai_bin}`"
    findings = [Finding("log-in", ok=True, detail=f"{account}, by {told} in {region}")]

    async def look_at_flavor() -> str:
        flavor = await flavor_in(driver, region, settings)
        most = "" if flavor.max is None else f", up to {flavor.max}"
        return f"{flavor.id} × {settings.gpu_count}{most}"

    async def look_at_volume() -> str:
        return _volume(settings)

    looks: dict[str, Look] = {
        "rights": lambda: _rights(driver, region, settings),
        "flavour": look_at_flavor,
        "image": lambda: _image(image),
        "volume": look_at_volume,
    }
    for other in settings.regions[1:]:
        looks[f"region {other}"] = partial(_fall_back, driver_of, other, settings)
    findings += await findings_of(looks)
    price = settings.price_per_hour
    told = f"{price:.2f} per hour while it runs" if price is not None else "unknown"
    return [*findings, Finding("price", ok=True, detail=told)]


def _volume(settings: OvhSettings) -> str:
    """Return which bucket of models is mounted, in words."""
    if settings.volume is None:
        return "none; models are in the image, or pulled at each start"
    volume = parse_volume(settings.volume)
    return f"bucket {volume.bucket} of {volume.alias} at {volume.path}, read only"


async def _fall_back(
    driver_of: Callable[[str], Driver], region: str, settings: OvhSettings
) -> str:
    driver = driver_of(region)
    flavor = await flavor_in(driver, region, settings)
    return f"{flavor.id}; {await _rights(driver, region, settings)}"


async def _rights(driver: Driver, region: str, settings: OvhSettings) -> str:
    """Check whether the credentials may change apps, by a change that can't succeed.

    It stops an app that does not exist: a token that may stop apps gets "not found".
    Inferred; how ``/v1/me`` names a token's role is not documented.
    """
    try:
        await driver.stop(_NO_APP)
    except NotFoundError:
        return "apps may be changed: a stop of one that does not exist is not refused"
    except CredentialsError as error:
        mend = settings.api_token_setting(region) if settings.speaks_rest else "log-in"
        raise CredentialsError(
            f"{mend}: apps may be read and not changed, so none could be started or"
            f" stopped; make a token with the role operator ({error})"
        ) from error
    except BackendError as error:
        return f"it could not be verified that apps may be changed ({error})"
    return "it could not be verified that apps may be changed"


def _world(region: str, error: BackendError) -> str:
    """Return a hint at the other half of OVHcloud, which has accounts of its own."""
    if region.startswith("US-"):
        return f"; {region} is for accounts of OVHcloud US only, others use GRA or BHS"
    if isinstance(error, CredentialsError):
        return "; an account of OVHcloud US uses OVH_REGION=US-EAST-VA"
    return ""


async def _image(name: str | None) -> str:
    """Look whether an image can run as user 42420 behind its guard."""
    if name is None:
        raise SpecError("none; run `ollama-proxy deploy IMAGE` once, or set OVH_IMAGE")
    try:
        image = await look_at_guarded(name)
    except CredentialsError as error:
        hint = "`ovhai registry list` shows what AI Deploy may read"
        return f"{error}: it can't be examined; {hint}"
    return f"{name}, linux/amd64, {image.size / _GIB:.1f} GiB to fetch"
