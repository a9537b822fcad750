"""Declare the settings of the hub: machines that register themselves."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationInfo

from ollama_proxy.base.fields import Duration, setting
from ollama_proxy.base.listen_address import split_address
from ollama_proxy.base.parsers import Listen, parse_word
from ollama_proxy.core.nodes.legacy_rule import LegacyMode
from ollama_proxy.core.nodes.wanted import WantedRule, parse_wanted

_OFF = "off"
_PORT = 8000


def parse_hub_listen(value: object) -> Listen | None:
    """Return where the hub listens besides; a host alone has port 8000."""
    if value is None or isinstance(value, Listen):
        return value
    if (text := str(value).strip()).lower() == _OFF:
        return None
    host, port = split_address(text, _PORT)
    return Listen(host=host, port=port)


def _check_offline(offline: float, info: ValidationInfo) -> float:
    ttl = info.data.get("heartbeat_ttl")
    if ttl is not None and offline <= ttl:
        raise ValueError(
            f"{offline:g} s are not more than HEARTBEAT_TTL_SECONDS, {ttl:g} s, after"
            " which a node is offline; a node is removed later than that"
        )
    return offline


class HubSettings(BaseModel):
    """Holds the settings of the hub; `Settings` has them, after those of access.

    Names without our prefix are those of the former hub.
    """

    hub: bool = setting(
        "false",
        "OLLAMA_PROXY_HUB",
        text="whether machines with the agent register here, and requests go to them",
        shown="false",
    )
    hub_listen: Annotated[Listen | None, BeforeValidator(parse_hub_listen)] = setting(
        ":8000",
        "OLLAMA_PROXY_HUB_LISTEN",
        text="host:port where the hub listens besides; `off`: only where clients ask",
        shown=":8000",
    )
    hub_legacy: Annotated[LegacyMode, BeforeValidator(parse_word)] = setting(
        "auto",
        "OLLAMA_PROXY_HUB_LEGACY",
        text="whether machines without a key register from private networks: `on`,"
        " `off` or `auto` (until the first key is made)",
        shown="auto",
    )
    hub_wanted_models: Annotated[WantedRule, BeforeValidator(parse_wanted)] = setting(
        "none",
        "OLLAMA_PROXY_HUB_WANTED_MODELS",
        text="models that nodes with room pull: `none`, `all` that any node has, or"
        " names with commas in between",
        shown="none",
    )
    heartbeat_interval: Annotated[Duration, Field(ge=1, le=3600)] = setting(
        "30",
        "HEARTBEAT_INTERVAL",
        text="time between two beats of an agent, as the hub asks for it",
        shown="30",
    )
    heartbeat_ttl: Annotated[Duration, Field(ge=1, le=86400)] = setting(
        "90",
        "HEARTBEAT_TTL_SECONDS",
        text="a node that has not beaten for this long is offline",
        shown="90",
    )
    heartbeat_offline: Annotated[
        Duration, Field(ge=1, le=86400), AfterValidator(_check_offline)
    ] = setting(
        "180",
        "HEARTBEAT_OFFLINE_SECONDS",
        text="a node that has not beaten for this long is removed",
        shown="180",
    )
    node_max_failures: Annotated[int, Field(ge=1, le=1000)] = setting(
        3,
        "NODE_MAX_FAILURES",
        text="failures in a row after which a node is degraded: one try each 30 s",
        shown="3",
    )
    node_request_timeout: Annotated[Duration, Field(ge=1, le=86400)] = setting(
        "120",
        "NODE_REQUEST_TIMEOUT",
        text="how long a node may take to the first byte of an answer; more while it"
        " loads the model",
        shown="120",
    )

    @property
    def hub_address(self) -> Listen | None:
        """Return where the hub listens as well; None if it does not, or is off."""
        return self.hub_listen if self.hub else None
