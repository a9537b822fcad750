"""Declare the settings of the agent, by the names that the former agent had."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from yarl import URL

from ollama_proxy.base.environment import expanded, state_folder, without_quotes
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.base.fields import Duration, environment_names, setting
from ollama_proxy.base.parsers import parse_log_level, parse_url
from ollama_proxy.core.nodes.hub_routes import TUNNEL
from ollama_proxy.core.nodes.labels import Labels, parse_labels
from ollama_proxy.core.nodes.node_id import check_node_id

_LEVELS = ("debug", "info", "warning", "error")
_INVALID = "Value error, "
_USUAL_MODELS = (Path("~/.ollama/models"), Path("/usr/share/ollama/.ollama/models"))
"""Where Ollama keeps models: started by a person, and by its own installer."""


def _check_url(text: str) -> str:
    """Refuse what no request can be sent to."""
    try:
        url = URL(text)
        is_whole = bool(url.host) and url.port is not None
    except ValueError:
        is_whole = False
    if not is_whole or url.query_string or url.fragment:
        raise ValueError(f"{text!r} is not a URL; write http://host:port")
    return text


def _check_level(text: str) -> str:
    if text not in _LEVELS:
        raise ValueError(f"{text!r} is no level; write {', '.join(_LEVELS)}")
    return text


Url = Annotated[str, BeforeValidator(parse_url), AfterValidator(_check_url)]


class NodeSettings(BaseModel):
    """Holds the settings of the agent; its names are those of the former one."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    server_url: Url = setting(
        "http://localhost:8000",
        "SERVER_URL",
        text="the hub: beats go there, and only its addresses may ask",
        shown="http://localhost:8000",
    )
    node_id: Annotated[str, AfterValidator(check_node_id)] | None = setting(
        None,
        "NODE_ID",
        text="this machine's name in the hub; kept in the state folder",
        shown="the host name",
    )
    node_token: SecretStr | None = setting(
        None,
        "OLLAMA_PROXY_NODE_TOKEN",
        text="joins the hub, once: `ollama-proxy node-token` on the hub prints it",
        shown="–",
    )
    tls: bool = setting(
        True,  # noqa: FBT003 - its default
        "NODE_TLS",
        text="whether a node that joins speaks TLS with its hub; also `--no-tls`",
        shown="true",
    )
    node_port: Annotated[int, Field(ge=0, le=65535)] = setting(
        8001,
        "NODE_PORT",
        text="the port where the hub asks, on every address; 0: a free one",
        shown="8001",
    )
    tunnel: bool = setting(
        "false",
        "NODE_TUNNEL",
        text="take requests through connections that this machine opens to the hub:"
        " the hub need not reach NODE_PORT; also `--tunnel`",
        shown="false",
    )
    ollama_base_url: Url = setting(
        "http://127.0.0.1:11434",
        "OLLAMA_BASE_URL",
        text="the machine's Ollama",
        shown="http://127.0.0.1:11434",
    )
    heartbeat_interval: Annotated[Duration, Field(ge=1, le=3600)] = setting(
        30.0,
        "HEARTBEAT_INTERVAL",
        text="time between two beats, varied by a tenth",
        shown="30",
    )
    node_request_timeout: Annotated[Duration, Field(ge=1, le=86400)] = setting(
        120.0,
        "NODE_REQUEST_TIMEOUT",
        text="how long Ollama may take to the first byte of an answer; five times as"
        ' long with `"stream": false`, where the answer begins when it is complete;'
        " 300 s more for a model that is not loaded",
        shown="120",
    )
    slots: Annotated[int, Field(ge=1, le=1024)] | None = setting(
        None,
        "OLLAMA_NUM_PARALLEL",
        text="how many requests Ollama works on at a time: write what Ollama has",
        shown="–",
    )
    labels: Annotated[Labels, BeforeValidator(parse_labels)] = setting(
        Labels(),
        "NODE_LABELS",
        text="what a hub may choose among nodes by: `gpu=a100,site=home`",
        shown="–",
    )
    models_dirs: tuple[Path, ...] = setting(
        (),
        "OLLAMA_MODELS",
        text="the folder with the models of Ollama, whose free space the hub learns",
        shown="where Ollama keeps them by default",
    )
    log_level: Annotated[
        str, BeforeValidator(parse_log_level), AfterValidator(_check_level)
    ] = setting(
        "info",
        "LOG_LEVEL",
        text="`debug`, `info`, `warning` or `error`",
        shown="info",
    )
    state_dir: Path = setting(
        Path(),
        "OLLAMA_PROXY_STATE_DIR",
        text="the folder that keeps the node's name",
        shown="~/.local/state/ollama-proxy",
    )

    @property
    def beat_url(self) -> str:
        """Return where beats go."""
        return f"{self.server_url}/nodes/heartbeat"

    @property
    def tunnel_url(self) -> str:
        """Return where tunnels go."""
        return f"{self.server_url}{TUNNEL}"

    @property
    def has_ollama_here(self) -> bool:
        """Tell whether its Ollama is on this machine, as far as the URL says."""
        return URL(self.ollama_base_url).host in {"localhost", "127.0.0.1", "::1"}

    @property
    def hub(self) -> tuple[str, int]:
        """Return host and port of the hub."""
        url = URL(self.server_url)
        return url.host or "", url.port or 80

    def started_line(
        self, node_id: str, port: int, addresses: str, *, has_joined: bool
    ) -> str:
        """Return what the agent does, and whose requests it takes, on one line."""
        host, _ = self.hub
        what, whose = "POST /execute", f"from {host} alone ({addresses})"
        if has_joined:
            what, whose = "all of Ollama's API", "from the hub alone, by its token"
        if self.tunnel:
            whose += ", and through tunnels that it opens to the hub"
        return (
            f"ollama-proxy node: {node_id!r} reports {self.ollama_base_url} to"
            f" {self.server_url} every {self.heartbeat_interval:g} s, and takes {what}"
            f" on port {port} {whose}"
        )


def read_node_settings(environment: Mapping[str, str]) -> NodeSettings:
    """Return the settings, or raise `SettingsError` with every fault."""
    env = without_quotes(environment)
    names = {
        name: environment_names(field)[0]
        for name, field in NodeSettings.model_fields.items()
    }
    given: dict[str, object] = {
        name: env[variable] for name, variable in names.items() if env.get(variable)
    }
    if models := given.get("models_dirs"):
        given["models_dirs"] = (expanded(Path(str(models)), env),)
    folder = given.get("state_dir")
    given["state_dir"] = (
        expanded(Path(str(folder)), env) if folder else state_folder(env)
    )
    try:
        settings = NodeSettings.model_validate(given)
    except ValidationError as error:
        raise SettingsError(
            [
                f"{names[str(fault['loc'][0])]}: {fault['msg'].removeprefix(_INVALID)}"
                for fault in error.errors(include_url=False)
            ]
        ) from None
    # An Ollama elsewhere has its models elsewhere.
    if settings.models_dirs or not settings.has_ollama_here:
        return settings
    usual = tuple(expanded(path, env) for path in _USUAL_MODELS)
    return settings.model_copy(update={"models_dirs": usual})
