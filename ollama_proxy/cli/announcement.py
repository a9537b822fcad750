"""Print, when the proxy starts, what will be bought and what to type next."""

import json
import shlex
from dataclasses import dataclass

from ollama_proxy import __version__
from ollama_proxy.cli.launch_plan import LaunchPlan
from ollama_proxy.core.ollama.suggested_model import SuggestedModel


@dataclass(frozen=True, slots=True)
class Serving:
    """Holds what is printed before the first request is accepted.

    ``model``: one to try. ``plans``: what each offer starts. ``notices``: about
    settings that are not used. ``default_backend``: from the settings. ``warnings``:
    about possible costs. Empty if there is none.
    """

    url: str
    model: SuggestedModel
    simulated: bool
    plans: tuple[LaunchPlan, ...]
    notices: tuple[str, ...] = ()
    default_backend: str = ""
    warnings: tuple[str, ...] = ()


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
    url, model = serving.url, serving.model.name
    generate = shlex.quote(f"{url}/api/generate")  # a shell expands [::1]
    body = shlex.quote(
        json.dumps(
            {"model": model, "prompt": "hi"}, separators=(",", ":"), ensure_ascii=False
        )
    )
    kind = (
        "A simulator stands in for Ollama: its words are made up."
        if serving.simulated
        else "The first request that needs a model starts an instance."
    )
    lines = [
        f"ollama-proxy {__version__} listens on {url}. {kind}",
        *(plan.line for plan in serving.plans),
        *(f"Note: {notice}." for notice in serving.notices),
        *(f"Warning: {warning}." for warning in serving.warnings),
        "Type next, in another terminal:",
        *_pull(serving),
        f"  curl {generate} -d {body}",
        "      -> 503 while the instance is provisioned; a little later -> tokens",
        f"  curl -H 'Prefer: wait=120' {generate} -d {body}",
        "      -> waits for the instance instead",
        f"  {_status(serving, calling)}",
        f"  OLLAMA_HOST={_host(url)} ollama run {shlex.quote(model)}"
        "     # or any client of Ollama",
    ]
    return "\n".join(lines) + "\n"


def _pull(serving: Serving) -> list[str]:
    """Return how to get the model, unless it is known to be there."""
    if serving.model.is_there:
        return []
    body = shlex.quote(json.dumps({"model": serving.model.name}, separators=(",", ":")))
    pull = shlex.quote(f"{serving.url}/api/pull")
    return [
        f"  curl -H 'Prefer: wait=120' {pull} -d {body}",
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
    return f"OLLAMA_HOST={_host(serving.url)} {named}{command}"


def _host(url: str) -> str:
    return shlex.quote(url.removeprefix("http://"))
