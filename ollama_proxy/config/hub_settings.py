"""Declare the settings of the hub: machines that register themselves."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator

from ollama_proxy.base.fields import setting
from ollama_proxy.base.listen_address import split_address
from ollama_proxy.base.parsers import Listen

_PORT = 8000


def parse_hub_listen(value: object) -> Listen | None:
    """Return the address that the former hub had; None for ``off``."""
    if value is None or isinstance(value, Listen):
        return value
    text = str(value).strip()
    if text.lower() == "off":
        return None
    host, port = split_address(text, _PORT)
    return Listen(host=host, port=port)


class HubSettings(BaseModel):
    """Holds the settings of the hub; `Settings` has them, after those of access."""

    hub: bool = setting(
        "false",
        "OLLAMA_PROXY_HUB",
        text="be a hub: machines register themselves, and serve its requests",
        shown="false",
    )
    hub_listen: Annotated[Listen | None, BeforeValidator(parse_hub_listen)] = setting(
        ":8000",
        "OLLAMA_PROXY_HUB_LISTEN",
        text="host:port where the hub listens as well, as the former one did; `off`",
        shown=":8000",
    )
