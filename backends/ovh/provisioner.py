"""Make an app: of what, and the one call."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping

from ollama_proxy.backends.base.ownership_tags import OwnershipTags
from ollama_proxy.backends.base.provisioning_journal import (
    ProvisioningJournal,
)
from ollama_proxy.backends.base.starting import Creation
from ollama_proxy.backends.ovh.driver import Driver
from ollama_proxy.backends.ovh.flavors import Flavor, find_flavor
from ollama_proxy.backends.ovh.order import PORT, Order
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.backends.ovh.volume import parse_volume
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import (
    SpecError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.upstream.certificates import Authority


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
    """Says how apps are made: of the settings, or of what was deployed."""

    def __init__(
        self,
        settings: OvhSettings,
        *,
        tags: OwnershipTags,
        journal: ProvisioningJournal,
        authority: Authority,
        clock: Clock,
        driver_of: Callable[[str], Driver],
        max_lifetime_s: float | None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._tags = tags
        self._journal = journal
        self._authority = authority
        self._clock = clock
        self._driver_of = driver_of
        self._max_lifetime_s = max_lifetime_s or 0.0
        self._given = dict(environment or {})
        self._tried: str | None = None

    @property
    def image(self) -> str | None:
        """Return the image that is meant: of the settings, else what was deployed."""
        return self._tried or self._settings.image or self._journal.book.image

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
            *filter(
                None, (settings.app_name, self._given)
            ),  # keeps former labels valid
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    async def creation(self, launch_id: LaunchId, region: str) -> Creation:
        """Return the one call that makes an app; asked twice, it makes two."""
        driver = self._driver_of(region)
        flavor = await flavor_in(driver, region, self._settings)
        identity = str(launch_id) if driver.hides_environment else None
        order = self._order(launch_id, region, flavor, identity)

        async def create() -> str:
            return (await driver.create(order)).id

        return Creation(create, identity)

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
            labels=self._tags.of(
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
            **self._given,
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
