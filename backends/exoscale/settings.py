"""Declare the settings of Exoscale: ``EXOSCALE_*``, or the table ``[exoscale]``."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from ollama_proxy.base.fields import BackendSettings, Duration, Names, setting
from ollama_proxy.base.parsers import parse_networks, parse_url


class ExoscaleSettings(BackendSettings):
    """Says where an instance is made, its type, and which networks may reach it."""

    credentials = (("api_key", "api_secret"),)
    pairs = (("api_key", "api_secret"),)

    api_key: str | None = setting(
        None, "EXOSCALE_API_KEY", text="the key's id", shown="–"
    )
    api_secret: SecretStr | None = setting(
        None, "EXOSCALE_API_SECRET", text="the key's secret", shown="–"
    )
    zone: Annotated[str, Field(pattern=r"^[a-z]{2}-[a-z]+-\d+$")] = setting(
        "at-vie-2", "EXOSCALE_ZONE", text="where instances are made", shown="at-vie-2"
    )
    fallback_zones: Names = setting(
        (),
        "EXOSCALE_FALLBACK_ZONES",
        text="comma-separated zones to try next when the first has no room",
        shown="–",
    )
    instance_type: str = setting(
        "a5000.small",
        "EXOSCALE_INSTANCE_TYPE",
        text="family and size: `gpua5000.small`, or shorter `a5000.small`",
        shown="a5000.small",
    )
    fallback_types: Names = setting(
        (),
        "EXOSCALE_FALLBACK_TYPES",
        text="comma-separated types to try next when there is none of the first",
        shown="–",
    )
    template: str = setting(
        "Linux Ubuntu 24.04 LTS 64-bit",
        "EXOSCALE_TEMPLATE",
        text="name of the template, own before public; the newest of several",
        shown="Linux Ubuntu 24.04 LTS 64-bit",
    )
    disk_size: Annotated[int, Field(ge=10, le=51200)] = setting(
        100, "EXOSCALE_DISK_SIZE", text="of the instance, in GiB", shown="100"
    )
    allowed_cidr: Annotated[Names, BeforeValidator(parse_networks)] = setting(
        (),
        "EXOSCALE_ALLOWED_CIDR",
        text="comma-separated networks that may reach the instance: the proxy's own",
        shown="the address that Exoscale sees, if its events tell",
    )
    ollama_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = setting(
        "0.32.15",
        "EXOSCALE_OLLAMA_VERSION",
        text="the Ollama that is installed on an instance",
        shown="0.32.15",
    )
    ollama_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = setting(
        None,
        "EXOSCALE_OLLAMA_SHA256",
        text="checksum of that version's `ollama-linux-amd64.tar.zst`",
        shown="the one in the release's own list on GitHub",
    )
    engine: Literal["native", "docker"] = setting(
        "native",
        "EXOSCALE_ENGINE",
        text="`docker` runs Ollama's image from Docker Hub instead of its archive",
        shown="native",
    )
    dead_man_timeout: Annotated[Duration, Field(ge=600)] = setting(
        "20m",
        "EXOSCALE_DEAD_MAN_TIMEOUT",
        text="an instance powers itself off after this long without its proxy",
        shown="20m",
    )
    lease: Annotated[Duration, Field(ge=600)] = setting(
        "1h",
        "EXOSCALE_LEASE",
        text="how far ahead an instance is marked as wanted, for `sweep --expired`",
        shown="1h",
    )
    idle_action: Literal["destroy", "stop"] = setting(
        "destroy",
        "EXOSCALE_IDLE_ACTION",
        text="`stop` keeps the disk, which costs on, and its models for the next start",
        shown="destroy",
    )
    destroy_after: Duration = setting(
        "1d",
        "EXOSCALE_DESTROY_AFTER",
        text="delete a stopped instance that was not needed for this long",
        shown="1d",
    )
    disk_price: Annotated[float, Field(ge=0)] | None = setting(
        None,
        "EXOSCALE_DISK_PRICE",
        text="per GiB and hour, for what a stopped instance costs; unknown if not set",
        shown="–",
    )
    price_per_hour: Annotated[float, Field(ge=0)] | None = setting(
        None,
        "EXOSCALE_PRICE_PER_HOUR",
        text="what the instance costs, for `/status` and `check`; unknown if not set",
        shown="–",
    )
    api_endpoint: Annotated[str, BeforeValidator(parse_url)] | None = setting(
        None,
        "EXOSCALE_API_ENDPOINT",
        text="base of the API; `{zone}` in it is filled in",
        shown="https://api-{zone}.exoscale.com/v2",
    )

    @property
    def zones(self) -> tuple[str, ...]:
        """Return every zone that is meant, in the order in which they are tried."""
        return (self.zone, *self.fallback_zones)

    @property
    def instance_types(self) -> tuple[str, ...]:
        """Return every instance type that is meant, in that order too."""
        return (self.instance_type, *self.fallback_types)

    def spec_of(
        self, type_name: str, environment: Mapping[str, str] | None = None
    ) -> str:
        """Return a label value that changes with what an instance is made of."""
        parts = [type_name, self.template, str(self.disk_size), self.ollama_version]
        parts += [
            f"{name}={value}" for name, value in sorted((environment or {}).items())
        ]
        return f"h{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}"

    @property
    def has_credentials(self) -> bool:
        """Tell whether both halves of a key are there."""
        return bool(self.api_key and self.api_secret)
