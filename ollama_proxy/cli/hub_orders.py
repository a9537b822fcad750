"""Have a running hub carry out orders of commands."""

from typing import Any

from ollama_proxy.base.errors import StartupError
from ollama_proxy.cli.admin_client import ProxyAnswerError
from ollama_proxy.cli.command_settings import Config, proxy_client, read_settings

_NOT_FOUND = 404


def order_of_hub(
    config: Config, method: str, path: str, words: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the answer to an order; raises `StartupError` where there is no hub."""
    client = proxy_client(read_settings(config))
    try:
        return client.send(method, path, words)
    except ProxyAnswerError as error:
        if error.status != _NOT_FOUND or error.body:
            raise
        raise StartupError(
            f"the proxy at {client.url} is no hub; start it with OLLAMA_PROXY_HUB=true"
        ) from error
