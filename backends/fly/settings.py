"""Declare the settings of Fly Machines: ``FLY_*``, or the table ``[fly]``."""

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
)

from ollama_proxy.backends.fly.sizes import NO_GPUS, SIZES, Size, refuse_gpus
from ollama_proxy.base.fields import BackendSettings, Duration, Names, setting
from ollama_proxy.base.parsers import parse_url

_APP = r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$"
_MOST_SUSPENDED_MB = 2048
_REGION = re.compile(r"[a-z]{3}\Z")


def _checked_regions(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if not _REGION.match(name):
            raise ValueError(f"{name!r} is not a region; write fra or iad")
    return value


def _checked_size(value: str) -> str:
    refuse_gpus(value)
    if value not in SIZES:
        raise ValueError(f"{value!r} is not a size; known: {', '.join(SIZES)}")
    return value


DISK_GB = 8.0
"""Largest image in GB; a stopped machine keeps it on its disk."""

HOURS_A_MONTH = 730.0


class FlySettings(BackendSettings):
    """Says where a machine runs, its size, and how it is reached."""

    credentials = (("api_token",),)

    api_token: SecretStr | None = setting(
        None,
        "FLY_API_TOKEN",
        text="token of the app (`fly tokens create deploy`), of the organisation for"
        " `deploy` of a new app",
        shown="–",
    )
    app: Annotated[str, Field(pattern=_APP)] | None = setting(
        None,
        "FLY_APP",
        text="the app; it belongs to this deployment alone",
        shown="–",
    )
    org: str = setting(
        "personal",
        "FLY_ORG",
        text="the organisation in which `deploy` makes the app",
        shown="personal",
    )
    region: Annotated[str, Field(pattern=r"^[a-z]{3}$")] = setting(
        "fra",
        "FLY_MACHINE_REGION",
        text="where the machine runs; `FLY_REGION` is Fly's own, of a proxy inside Fly",
        shown="fra",
    )
    fallback_regions: Annotated[Names, AfterValidator(_checked_regions)] = setting(
        (),
        "FLY_FALLBACK_REGIONS",
        text="comma-separated regions to try next when the first has no room",
        shown="–",
    )
    image: str | None = setting(
        None,
        "FLY_IMAGE",
        text="the image of `cloud-init/container/`, with a digest or a tag",
        shown="what was given to `deploy`",
    )
    size: Annotated[str, AfterValidator(_checked_size)] = setting(
        "shared-cpu-1x",
        "FLY_VM_SIZE",
        text="`shared-cpu-1x` to `-8x`, `performance-1x` to `-16x`; there are no GPUs",
        shown="shared-cpu-1x",
    )
    memory_mb: Annotated[int, Field(ge=256, multiple_of=256)] | None = setting(
        None,
        "FLY_VM_MEMORY",
        text="in MB, in steps of 256",
        shown="the most that the size may have, 2048 per CPU at `shared`, 8192 else",
    )
    gpu_kind: str | None = setting(
        None,
        "FLY_GPU_KIND",
        text="refused: Fly's GPU machines ended on 2026-08-01",
        shown="–",
    )
    volume_gb: Annotated[int, Field(ge=0, le=500)] = setting(
        8,
        "FLY_VOLUME_GB",
        text="volume for models, in GB; 0: none, models are in the image or pulled"
        " at each start",
        shown="8",
    )
    keep_volume: bool = setting(
        "true",
        "FLY_KEEP_VOLUME",
        text="whether the volume outlives a machine that is destroyed",
        shown="true",
    )
    idle_action: Literal["stop", "suspend", "destroy"] = setting(
        "stop",
        "FLY_IDLE_ACTION",
        text="what to do with an idle machine; `suspend` up to 2048 MB only",
        shown="stop",
    )
    access: Literal["public", "flycast", "6pn"] = setting(
        "public",
        "FLY_ACCESS",
        text="`public`: over `fly.dev`, the guard in front; `flycast` and `6pn`: from"
        " inside Fly's private network",
        shown="public",
    )
    autostop: bool = setting(
        "true",
        "FLY_AUTOSTOP",
        text="whether Fly's own proxy may stop a machine without connections, too",
        shown="true",
    )
    dead_man_timeout: Annotated[Duration, Field(ge=300)] = setting(
        "20m",
        "FLY_DEAD_MAN_TIMEOUT",
        text="the machine ends itself after this long without its proxy",
        shown="20m",
    )
    lease: Annotated[Duration, Field(ge=600)] = setting(
        "1h",
        "FLY_LEASE",
        text="how far ahead a machine is marked as wanted, for `sweep --expired`",
        shown="1h",
    )
    price_per_hour: Annotated[float, Field(ge=0)] | None = setting(
        None,
        "FLY_PRICE_PER_HOUR",
        text="what the running machine costs, for `/status` and `check`; unknown if not"
        " set",
        shown="–",
    )
    storage_price: Annotated[float, Field(ge=0)] = setting(
        "0.15",
        "FLY_STORAGE_PRICE",
        text="per GB and month of volumes and of a stopped machine's disk, by the"
        " published list",
        shown="0.15",
    )
    api_url: Annotated[str, BeforeValidator(parse_url)] = setting(
        "https://api.machines.dev",
        "FLY_FLAPS_BASE_URL",
        text="base of the API, `http://_api.internal:4280` inside Fly",
        shown="https://api.machines.dev",
    )
    app_url: Annotated[str, BeforeValidator(parse_url)] | None = setting(
        None,
        "FLY_APP_URL",
        text="where the app is reached; `{app}` and `{machine}` in it are filled in",
        shown="by `FLY_ACCESS`: `https://{app}.fly.dev`, `http://{app}.flycast`,"
        " `http://{machine}.vm.{app}.internal:8080`",
    )

    @property
    def guest(self) -> Size:
        """Return the machine's size, with its memory."""
        size = SIZES[self.size]
        if self.memory_mb is None:
            return size
        return Size(size.kind, size.cpus, self.memory_mb)

    @property
    def regions(self) -> tuple[str, ...]:
        """Return every region that is meant, in the order in which they are tried."""
        return tuple(dict.fromkeys((self.region, *self.fallback_regions)))

    @property
    def keeps_disk(self) -> bool:
        """Tell whether pulled models outlive a stop of the machine.

        Fly restores a stopped machine's disk from its image, and a suspended one's from
        a snapshot.
        """
        if self.volume_gb:
            return self.idle_action != "destroy" or self.keep_volume
        return self.idle_action == "suspend"

    def url_of(self, machine_id: str) -> str:
        """Return where a machine of the app is reached."""
        by_access = {
            "public": "https://{app}.fly.dev",
            "flycast": "http://{app}.flycast",
            "6pn": "http://{machine}.vm.{app}.internal:8080",
        }
        template = self.app_url or by_access[self.access]
        return template.replace("{app}", self.app or "").replace(
            "{machine}", machine_id
        )

    def storage_per_hour(self, size_gb: float) -> float:
        """Return the price of so much storage."""
        return size_gb * self.storage_price / HOURS_A_MONTH

    def faults(self) -> list[str]:
        """Return conflicts between settings that are valid one by one."""
        faults = []
        if self.gpu_kind is not None:
            faults.append(f"FLY_GPU_KIND: {NO_GPUS}")
        if self.api_token is None:
            faults.append(
                "FLY_API_TOKEN: the backend 'fly' needs a token; make one with"
                " `fly tokens create deploy`"
            )
        if self.app is None:
            faults.append("FLY_APP: the backend 'fly' needs the name of its app")
        if problem := self.guest.problem():
            faults.append(f"FLY_VM_MEMORY: {problem}")
        if self.idle_action == "suspend" and self.guest.memory_mb > _MOST_SUSPENDED_MB:
            faults.append(
                f"FLY_IDLE_ACTION: Fly suspends up to {_MOST_SUSPENDED_MB} MB, and this"
                f" machine has {self.guest.memory_mb}; write stop, or less memory"
            )
        if self.idle_action != "destroy" and not self.keep_volume:
            faults.append(
                "FLY_KEEP_VOLUME: a machine that is kept keeps its volume; write"
                " FLY_IDLE_ACTION=destroy"
            )
        return faults
