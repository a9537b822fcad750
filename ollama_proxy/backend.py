"""Give plug-ins the names of `ollama_proxy.fleet.backend` by a former path."""

from ollama_proxy.base.former_names import forwarded

_NOW = "ollama_proxy.fleet.backend"

__getattr__ = forwarded(
    __name__,
    {
        "*": _NOW,
        "Checkable": f"{_NOW}:SupportsCheck",
        "Deployable": f"{_NOW}:SupportsDeploy",
        "Keeping": f"{_NOW}:SupportsIdleCosts",
        "Leased": f"{_NOW}:SupportsExpiry",
        "Priced": f"{_NOW}:SupportsPrices",
        "Releasing": f"{_NOW}:SupportsRelease",
        "Renewable": f"{_NOW}:SupportsHeartbeat",
        "Tidied": f"{_NOW}:SupportsTidy",
    },
)
