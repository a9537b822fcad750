"""Find, and delete, apps of the deployment's name without its owner id.

For example those of the older controller, whose `deploy` replaced any app of the name.
Such an app may belong to anyone, so it is touched only after a person has typed its id.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from ollama_proxy.backends.base.ownership_tags import OwnershipTags
from ollama_proxy.backends.ovh.apps import App
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.base.errors import (
    ConsentError,
    NotFoundError,
    OutcomeUnknownError,
    StartupError,
    TransientError,
)

_GONE_S = 900.0

Found = tuple[str, App]
"""An app, after the region in which it is."""


def to_replace(
    found: Sequence[Found],
    *,
    name: str | None,
    allowed: Collection[str],
    per_hour: float | None,
) -> list[Found]:
    """Return the apps of others that must be deleted before ours is made. Pure.

    Raises `ConsentError` if one has our ``name`` and is not ``allowed`` to be deleted,
    and `StartupError` if an allowed one has another name: that consent was a mistake.
    An id that does not exist is gone already; an app that is being deleted needs no
    consent.
    """
    found = [(r, a) for r, a in found if not a.is_leaving or a.id in allowed]
    namesakes = [(r, a) for r, a in found if name and a.spec.name == name]
    ids = {app.id for _, app in namesakes}
    for region, app in found:
        if app.id in allowed and app.id not in ids:
            raise StartupError(
                f"--replace {app.id}: that app in {region} has the name"
                f" {app.spec.name!r}, and OVH_APP_NAME is {name!r}; nothing was touched"
            )
    if lacking := [(r, a) for r, a in namesakes if a.id not in allowed]:
        told = "; ".join(_words(region, app, per_hour) for region, app in lacking)
        options = " ".join(f"--replace {app.id}" for _, app in lacking)
        raise ConsentError(
            f"OVH_APP_NAME is {name!r}, and so are apps that this deployment did not"
            f" make: {told}; {options} has `deploy` stop and delete them, another"
            " OVH_APP_NAME leaves them alone. Nothing was touched",
            tuple(app.id for _, app in lacking),
        )
    return namesakes


def _words(region: str, app: App, per_hour: float | None) -> str:
    owner = app.tag("owner")
    whose = f", of the owner {owner}" if owner else ""
    if app.is_stopped:
        price = "costs nothing now"
    elif per_hour is None:
        price = "price unknown"
    else:
        price = f"{per_hour:g} per hour as configured"
    return f"app {app.id} in {region}, {app.flavor}, {app.state}{whose} ({price})"


class Namesakes:
    """Sees and deletes apps that are not ours, in the regions that are set."""

    def __init__(
        self,
        labels: OwnershipTags,
        *,
        regions: Collection[str],
        driver_of: Callable[[str], Driver],
        pause_s: float,
    ) -> None:
        self._labels = labels
        self._regions = regions
        self._driver_of = driver_of
        self._pause_s = pause_s

    async def found(self) -> list[Found]:
        """Return apps that are neither ours nor deleted; raises if a region fails."""
        return [
            (region, app)
            for region in self._regions
            for app in await self._driver_of(region).apps()
            if not self._labels.is_ours(app) and app.state != "DELETED"
        ]

    async def replaced(self, region: str, app: App) -> AsyncIterator[str]:
        """Stop an app, then delete it, and wait until its id is unknown.

        It must still be the app that the person agreed to.
        """
        begun = "waiting for" if app.is_leaving else "stopping"
        yield f"{begun} the app {app.id} in {region}, named {app.spec.name!r}"
        driver, said, is_told = self._driver_of(region), "no answer", False
        try:
            async with asyncio.timeout(_GONE_S):
                while True:
                    try:
                        seen = await self._same(driver, app)
                        said = seen.state.lower()
                        if seen.state == "DELETED":
                            return
                        if seen.is_stopped or seen.state in {"FAILED", "ERROR"}:
                            if not is_told:
                                yield f"deleting the app {app.id} in {region}"
                            is_told = True
                            await driver.delete(app.id, force=not seen.is_stopped)
                        elif seen.state not in {"STOPPING", "DELETING"}:
                            await driver.stop(app.id)
                    except NotFoundError:
                        return
                    except (TransientError, OutcomeUnknownError) as error:
                        said = str(error)
                    await asyncio.sleep(self._pause_s)
        except TimeoutError:
            raise TransientError(
                f"the app {app.id} in {region} is still there after {_GONE_S:.0f} s"
                f" ({said}), so no new one was made; look into the control panel"
            ) from None

    async def _same(self, driver: Driver, app: App) -> App:
        seen = await driver.app(app.id)
        if self._labels.is_ours(seen) or seen.spec.name != app.spec.name:
            raise StartupError(
                f"the app {app.id} is not what it was when it was named; look again"
            )
        return seen
