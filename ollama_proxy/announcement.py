"""What is printed when the proxy starts: what will be bought, and what to type next."""

from dataclasses import dataclass

from ollama_proxy import __version__
from ollama_proxy.launch_plan import LaunchPlan


@dataclass(frozen=True, slots=True)
class Serving:
    """What is told before the first request is taken.

    ``model`` is one to try; ``notice`` tells of settings that are not used, empty if
    there are none; ``default_backend`` is that of the settings, empty if there is none.
    """

    url: str
    model: str
    simulated: bool
    plan: LaunchPlan
    notice: str = ""
    default_backend: str = ""


def announcement(serving: Serving, program: str) -> str:
    """Return the lines to print; ``program`` is how this one was called."""
    url, model = serving.url, serving.model
    host = url.removeprefix("http://")
    body = f'{{"model":"{model}","prompt":"hi"}}'
    default = (
        f"OLLAMA_PROXY_DEFAULT_BACKEND={serving.default_backend} "
        if serving.default_backend
        else ""
    )
    kind = (
        "A simulator stands in for Ollama: its words are made up."
        if serving.simulated
        else "The first request that needs a model starts an instance."
    )
    lines = [
        f"ollama-proxy {__version__} listens on {url}. {kind}",
        f"Backend {serving.plan.sentence}.",
        *([f"Note: {serving.notice}."] if serving.notice else []),
        "Type next, in another terminal:",
        f"  curl {url}/api/generate -d '{body}'",
        "      -> 503 while the instance is provisioned; a little later -> tokens",
        f"  curl -H 'Prefer: wait=120' {url}/api/generate -d '{body}'",
        "      -> waits for the instance instead",
        f"  OLLAMA_HOST={host} {default}{program} status --watch",
        f"  OLLAMA_HOST={host} ollama run {model}     # or any client of Ollama",
    ]
    return "\n".join(lines) + "\n"
