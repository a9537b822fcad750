"""Examine what a machine would need, without making one."""

from typing import Any

from ollama_proxy.backends.base.findings import Look, findings_of
from ollama_proxy.backends.fly.api import FlyApi
from ollama_proxy.backends.fly.config import guest_of
from ollama_proxy.backends.fly.image import examined, size_words
from ollama_proxy.backends.fly.regions import regions_in_words
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.base.errors import BackendError, NotFoundError, SpecError
from ollama_proxy.fleet.backend import Finding


async def examine(
    api: FlyApi, settings: FlySettings, *, image: str | None
) -> list[Finding]:
    """Look at token, app, region, room, image, exposure and price, in that order."""
    try:
        scope = _scope(await api.token())
    except BackendError as error:
        return [Finding("token", ok=False, detail=str(error))]
    findings = [Finding("token", ok=True, detail=scope)]
    app: dict[str, Any] = {}

    async def look_at_app() -> str:
        app.update(await _app(api))
        return f"{api.app}, {app.get('machine_count', 'unknown')} machine(s)"

    async def look_at_region() -> str:
        return regions_in_words(await api.all_regions(), settings)

    async def look_at_exposure() -> str:
        return _exposure(await api.addresses(), settings)

    looks: dict[str, Look] = {
        "app": look_at_app,
        "regions": look_at_region,
        "room": lambda: _room(api, settings, app),
        "image": lambda: _image(image),
        "exposure": look_at_exposure,
    }
    findings += await findings_of(looks)
    return [*findings, *_costs(settings)]


async def _app(api: FlyApi) -> dict[str, Any]:
    """Return the app; raises `SpecError` if there is none."""
    try:
        return await api.show_app()
    except NotFoundError:
        raise SpecError(
            f"there is no app {api.app!r}; `ollama-proxy deploy IMAGE` makes it,"
            f" and with it registry.fly.io/{api.app}, to which images are pushed"
        ) from None


async def _room(api: FlyApi, settings: FlySettings, app: dict[str, Any]) -> str:
    """Return where there is room for a machine; raises `SpecError` if nowhere."""
    org = str((app.get("organization") or {}).get("slug") or settings.org)
    regions = ",".join(settings.regions)
    found = await api.placements(org, regions, guest_of(settings))
    rooms = [str(one.get("region")) for one in found if one.get("count")]
    if not rooms:
        told = f"no room for {settings.size} in {regions} just now"
        raise SpecError(f"{told}; add regions to FLY_FALLBACK_REGIONS")
    return f"{settings.size}, {settings.guest.memory_mb} MB in {', '.join(rooms)}"


def _costs(settings: FlySettings) -> list[Finding]:
    """Return the costs of a machine, and the limit of a free trial."""
    trial = "not shown by the API; on a free trial machines end after 5 minutes"
    price = settings.price_per_hour
    told = f"{price:.3f} per hour while it runs" if price is not None else "unknown"
    idle = f"volume {settings.volume_gb * settings.storage_price:.2f} a month"
    return [
        Finding("free trial", ok=True, detail=trial),
        Finding("price", ok=True, detail=f"{told}; idle: {idle}, and a stopped disk"),
    ]


def _scope(tokens: list[dict[str, Any]]) -> str:
    """Return what the token is for, and whether that is more than needed."""
    apps = [app for one in tokens for app in one.get("apps") or []]
    if apps:
        return f"for the app(s) {', '.join(apps)}"
    orgs = [str(one.get("org_slug") or one.get("organization")) for one in tokens]
    return (
        f"for the whole organisation {', '.join(orgs)}: more than is needed once the"
        " app is there; `fly tokens create deploy` makes one of the app alone"
    )


async def _image(name: str | None) -> str:
    """Look whether an image is ours and small enough."""
    if name is None:
        raise SpecError("none; run `ollama-proxy deploy IMAGE` once, or set FLY_IMAGE")
    image = await examined(name)
    if image is None:
        return (
            f"{name}, which Fly alone can read, so it can't be examined: it has to be"
            " pushed there, with at most 8 GB unpacked"
        )
    return f"{name}, {size_words(image)}"


def _exposure(addresses: list[dict[str, Any]], settings: FlySettings) -> str:
    """Return the networks that reach the guard; raises `SpecError` if too many do."""
    ips = [str(one.get("ip")) for one in addresses]
    public = [ip for ip in ips if not ip.lower().startswith("fdaa")]
    if settings.access != "public" and public:
        raise SpecError(
            f"FLY_ACCESS={settings.access}, and the app has public addresses"
            f" ({', '.join(public)}); release them: `fly ips release`"
        )
    if settings.access == "public" and not public:
        raise SpecError(
            "the app has no public address; run `ollama-proxy deploy IMAGE`"
        )
    if settings.access == "public":
        return "public, over TLS, and nothing without the machine's token"
    return "from inside Fly's private network, and nothing without the machine's token"
