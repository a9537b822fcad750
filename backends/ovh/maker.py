"""Make an app: of what, where, and the one call."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator

from ollama_proxy.backends.attempts import Attempt, Attempts
from ollama_proxy.backends.ovh.apps import OwnershipTags
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.backends.ovh.flavors import Flavor, find_flavor
from ollama_proxy.backends.ovh.order import PORT, Order
from ollama_proxy.backends.ovh.settings import OvhSettings, parse_volume
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    OutcomeUnknownError,
    SpecError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.upstream.certificates import Authority

_NO_ROOM_S = 600.0


async def flavor_in(driver: Driver, region: str, settings: OvhSettings) -> Flavor:
    """Return the flavour that is meant; raises `SpecError` if it is not sold there."""
    return find_flavor(
        await driver.flavors(),
        flavor_id=settings.flavor,
        gpu_model=settings.gpu_model,
        count=settings.gpu_count,
        region=region,
    )


class Provisioner:
    """Makes apps, each with its attempt on disk before and after the call."""

    def __init__(
        self,
        settings: OvhSettings,
        *,
        labels: OwnershipTags,
        attempts: Attempts,
        authority: Authority,
        clock: Clock,
        driver_of: Callable[[str], Driver],
        max_lifetime_s: float | None,
    ) -> None:
        self._settings = settings
        self._labels = labels
        self._attempts = attempts
        self._authority = authority
        self._clock = clock
        self._driver_of = driver_of
        self._max_lifetime_s = max_lifetime_s or 0.0
        self._tried: str | None = None
        self._without_room: dict[str, float] = {}

    @property
    def image(self) -> str | None:
        """Return the image that is meant: of the settings, else what was deployed."""
        return self._tried or self._settings.image or self._attempts.book.image

    @contextlib.contextmanager
    def trying(self, image: str) -> Iterator[None]:
        """Let an image be the one that is meant, for the time being."""
        self._tried = image
        try:
            yield
        finally:
            self._tried = None

    @property
    def spec(self) -> str:
        """Return a label's value that changes with what an app is made of."""
        settings = self._settings
        parts = (
            self.image,
            settings.flavor or settings.gpu_model,
            settings.gpu_count,
            settings.volume,
            settings.dead_man,
            settings.dead_man_timeout,
            self._max_lifetime_s,
            *filter(None, (settings.app_name,)),  # so it is as before without one
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def regions(self) -> list[str]:
        """Return where to try, in order; what had no room lately comes last."""
        return sorted(self._settings.regions, key=self.is_full)

    def is_full(self, region: str) -> bool:
        """Tell whether there was no room in a region lately."""
        lately = self._clock.now() - _NO_ROOM_S
        return self._without_room.get(region, 0.0) > lately

    def is_full_everywhere(self) -> bool:
        """Tell whether there was no room in any region lately."""
        return all(self.is_full(region) for region in self._settings.regions)

    def note_full(self, region: str) -> None:
        """Remember that there was no room in a region."""
        self._without_room[region] = self._clock.now()

    async def make(self, launch_id: LaunchId) -> None:
        """Make an app in the first region that takes it."""
        problems: list[BackendError] = []
        for region in self.regions():
            try:
                await self._send(launch_id, region)
            except (CapacityError, SpecError) as error:
                problems.append(error)
                self.note_full(region)
            else:
                return
        full = [error for error in problems if isinstance(error, CapacityError)]
        raise (full or problems)[0]

    async def _send(self, launch_id: LaunchId, region: str) -> None:
        """Send the one call that makes an app, noted before and after."""
        driver = self._driver_of(region)
        flavor = await flavor_in(driver, region, self._settings)
        identity = str(launch_id) if driver.hides_environment else None
        order = self._order(launch_id, region, flavor, identity)
        sent = Attempt(region, attempted_at=self._clock.now(), identity=identity)
        self._attempts.put(launch_id, sent)
        try:
            app = await driver.create(order)
        except OutcomeUnknownError:
            raise
        except BackendError:
            self._attempts.put(launch_id, Attempt(region))  # refused: nothing was made
            raise
        self._attempts.mark(launch_id, instance_id=app.id)

    def _order(
        self, launch_id: LaunchId, region: str, flavor: Flavor, identity: str | None
    ) -> Order:
        settings = self._settings
        if self.image is None:
            raise SpecError(
                "no app is deployed; run `ollama-proxy deploy IMAGE` once, with the"
                " image of cloud-init/container, or set OVH_IMAGE"
            )
        return Order(
            name=settings.app_name or f"ollama-proxy-{launch_id}",
            region=region,
            image=self.image,
            flavor=flavor.id,
            units=settings.gpu_count,
            has_gpu=flavor.has_gpu,
            labels=self._labels.of(
                launch_id,
                lease_end=self._clock.wall() + settings.lease,
                spec=self.spec,
                identity=identity,
            ),
            environment=self._environment(identity),
            volume=parse_volume(settings.volume) if settings.volume else None,
            scales_to_zero=settings.dead_man == "metric",
        )

    def _environment(self, identity: str | None) -> dict[str, str]:
        """Return the entrypoint's environment; a token only if it stays hidden."""
        settings = self._settings
        told = {
            "PORT": str(PORT),
            "DEAD_MAN": "metric",
            "MAX_LIFETIME_S": f"{self._max_lifetime_s:.0f}",
        }
        if settings.dead_man == "metric":
            told["DEAD_MAN_S"] = f"{settings.dead_man_timeout:.0f}"
        if settings.volume:
            told["OLLAMA_MODELS"] = parse_volume(settings.volume).path
        if identity is None:
            return told | {"GUARD": "platform"}
        return told | {"GUARD_TOKEN": self._authority.token(LaunchId(identity))}
