"""Give plug-ins the names of `ollama_proxy.upstream.endpoint` by a former path."""

from ollama_proxy.base.former_names import forwarded

__getattr__ = forwarded(
    __name__,
    {
        "*": "ollama_proxy.upstream.endpoint",
        "MARK": "ollama_proxy.core.http.headers:GUARD_HEADER",
        "GUARD_TOKEN": "ollama_proxy.core.http.headers",
    },
)
