"""Print, when the proxy starts, what will be bought and what to type next."""

import json
import shlex
from dataclasses import dataclass

from ollama_proxy import __version__
from ollama_proxy.base.listen_address import host_and_port
from ollama_proxy.cli.launch_plan import LaunchPlan
from ollama_proxy.core.ollama.suggested_model import SuggestedModel


@dataclass(frozen=True, slots=True)
class OnTls:
    """Holds what a client on this machine needs to trust the proxy.

    ``host``: a name of the certificate in the file ``certificate``. ``state_dir``:
    where commands find the certificate that is shown.
    """

    host: str
    certificate: str
    state_dir: str


@dataclass(frozen=True, slots=True)
class Serving:
    """Holds what is printed before the first request is accepted.

    ``model``: one to try. ``plans``: what each offer starts. ``notices``: about
    settings that are not used. ``default_backend``: from the settings. ``warnings``:
    about possible costs. Empty if there is none. ``tls``: how it is called on TLS.
    ``open_to``: what may be done without a key; empty if requests need one.
    ``needs_key``: requests need one now; False: once there is one; None: never.
    ``state_dir``: the state folder, if a setting names it. ``hub_url``: where machines
    register; empty if there is no hub.
    """

    url: str
    model: SuggestedModel
    simulated: bool
    plans: tuple[LaunchPlan, ...]
    notices: tuple[str, ...] = ()
    default_backend: str = ""
    warnings: tuple[str, ...] = ()
    tls: OnTls | None = None
    open_to: str = ""
    needs_key: bool | None = None
    state_dir: str = ""
    hub_url: str = ""

    @property
    def has_nodes_alone(self) -> bool:
        """Tell whether requests go to machines that register, and start nothing."""
        return bool(self.hub_url) and all(one.registers_itself for one in self.plans)


@dataclass(frozen=True, slots=True)
class Calling:
    """Holds how to call the commands: the program, and its settings file if any.

    ``container``: the command that runs a program in the proxy's container, from
    outside, where the settings are the proxy's. Empty without a container.
    """

    program: str
    container: str = ""
    config: str = ""


def announcement(serving: Serving, calling: Calling) -> str:
    """Return the lines to print."""
    url, model = _client_url(serving), serving.model.name
    generate = shlex.quote(f"{url}/api/generate")  # a shell expands [::1]
    curl = _curl(serving)
    body = shlex.quote(
        json.dumps(
            {"model": model, "prompt": "hi"}, separators=(",", ":"), ensure_ascii=False
        )
    )
    lines = [
        f"ollama-proxy {__version__} listens on {serving.url}. {_kind(serving)}",
        *(plan.line for plan in serving.plans),
        *(f"Note: {notice}." for notice in serving.notices),
        *(f"Warning: {warning}." for warning in serving.warnings),
        *([f"Warning: {serving.open_to}."] if serving.open_to else []),
        "Type next, in another terminal:",
        *([_key(serving, calling)] if serving.needs_key else []),
        *([_node_token(serving, calling)] if serving.hub_url else []),
        *([] if serving.has_nodes_alone else _pull(serving)),
        f"  {curl} {generate} -d {body}",
        *_outcome(serving, f"{generate} -d {body}"),
        f"  {_status(serving, calling)}",
        *([_key(serving, calling)] if serving.needs_key is False else []),
        *_run(serving),
    ]
    return "\n".join(lines) + "\n"


def _kind(serving: Serving) -> str:
    """Return a sentence on what answers requests."""
    if serving.simulated:
        return "A simulator stands in for Ollama: its words are made up."
    if not serving.hub_url:
        return "The first request that needs a model starts an instance."
    where = f"the machines that register at {serving.hub_url}"
    if serving.has_nodes_alone:
        return f"Requests go to {where}."
    return f"Requests go to {where}; one that finds no room there starts an instance."


def _outcome(serving: Serving, call: str) -> list[str]:
    """Return what follows the call above, and how to wait for an instance."""
    if serving.has_nodes_alone:
        return ["      -> tokens, once a machine that has the model has registered"]
    return [
        "      -> 503 while the instance is provisioned; a little later -> tokens",
        f"  {_curl(serving)} -H 'Prefer: wait=120' {call}",
        "      -> waits for the instance instead",
    ]


def _node_token(serving: Serving, calling: Calling) -> str:
    """Return how a machine gets to register, by a command in the state folder."""
    command = _with_state("node-token", serving, calling)
    return f"  {command}     # prints what to type on a machine with Ollama"


def _pull(serving: Serving) -> list[str]:
    """Return how to get the model, unless it is known to be there."""
    if serving.model.is_there:
        return []
    body = shlex.quote(json.dumps({"model": serving.model.name}, separators=(",", ":")))
    pull = shlex.quote(f"{_client_url(serving)}/api/pull")
    return [
        f"  {_curl(serving)} -H 'Prefer: wait=120' {pull} -d {body}",
        "      -> no model is known to be there: this one is pulled",
    ]


def _status(serving: Serving, calling: Calling) -> str:
    """Return what shows the status; within the container it needs no address."""
    config = f" --config {shlex.quote(calling.config)}" if calling.config else ""
    command = f"{calling.program} status --watch{config}"
    if calling.container:
        return calling.container + command
    default = serving.default_backend
    named = f"OLLAMA_PROXY_DEFAULT_BACKEND={default} " if default else ""
    if serving.tls is not None:  # the state folder has the certificate to trust
        named += f"OLLAMA_PROXY_STATE_DIR={shlex.quote(serving.tls.state_dir)} "
    return f"OLLAMA_HOST={_host(serving.url)} {named}{command}"


def _key(serving: Serving, calling: Calling) -> str:
    """Return how to make a key, by a command that finds the state folder."""
    why, rights = "from then on requests need a key", ""
    if serving.needs_key:
        why = "requests need a key: KEY below"
        if not serving.model.is_there:
            rights = " --routes chat,embed,read,write"
    return f"  {_with_state('key add NAME', serving, calling)}{rights}     # {why}"


def _with_state(command: str, serving: Serving, calling: Calling) -> str:
    """Return a command that finds the state folder."""
    config = f" --config {shlex.quote(calling.config)}" if calling.config else ""
    command = f"{calling.program} {command}{config}"
    if calling.container:
        return calling.container + command
    if serving.state_dir:
        return f"OLLAMA_PROXY_STATE_DIR={shlex.quote(serving.state_dir)} {command}"
    return command


def _run(serving: Serving) -> list[str]:
    """Return how to use Ollama's own client, which can't send a key."""
    if serving.needs_key:
        return []
    host, model = _host(_client_url(serving)), shlex.quote(serving.model.name)
    command = f"{_trust(serving)}OLLAMA_HOST={host} ollama run {model}"
    return [f"  {command}     # or any client of Ollama"]


def _client_url(serving: Serving) -> str:
    """Return the address that clients use: on TLS by a name of the certificate."""
    if serving.tls is None or not serving.tls.host:
        return serving.url
    port = serving.url.rpartition(":")[2]
    return f"https://{host_and_port(serving.tls.host, int(port))}"


def _curl(serving: Serving) -> str:
    """Return how curl trusts the proxy, and finds it on this machine by that name."""
    key = ' -H "Authorization: Bearer $KEY"' if serving.needs_key else ""
    if serving.tls is None:
        return f"curl{key}"
    place = serving.url.removeprefix("https://")
    trusted = shlex.quote(serving.tls.certificate)
    return f"curl --cacert {trusted} --connect-to {shlex.quote(f'::{place}')}{key}"


def _trust(serving: Serving) -> str:
    """Return how Ollama's own client trusts the proxy."""
    if serving.tls is None:
        return ""
    return f"SSL_CERT_FILE={shlex.quote(serving.tls.certificate)} "


def _host(url: str) -> str:
    return shlex.quote(url.removeprefix("http://"))
