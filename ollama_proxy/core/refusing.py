"""Plan the refusal of a request in the words and the format of its route. Pure."""

from ollama_proxy.core.ollama.model_fate import absence
from ollama_proxy.core.ollama.native_refusals import Refusal
from ollama_proxy.core.ollama.routes import Family, Route
from ollama_proxy.core.plans import Refuse


def refuse_absent(route: Route, name: str, more: str = "") -> Refuse:
    """Say that a model is not there, in the words that its route has for that."""
    return refuse(route, 404, absence(route.name, name) + more)


def refuse(route: Route, status: int, message: str) -> Refuse:
    """Say why a request is refused."""
    is_native = route.family is Family.NATIVE
    return Refuse(
        Refusal(status, message, is_translated=not is_native, has_charset=is_native)
    )
