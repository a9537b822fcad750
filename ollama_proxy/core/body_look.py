"""Look at the body of a request for the few fields that a decision needs. Pure."""

from ollama_proxy.core.ollama.go_json import UnreadBodyError
from ollama_proxy.core.ollama.request_fields import BodyFields, read_fields
from ollama_proxy.core.ollama.routes import Family
from ollama_proxy.core.request_facts import Facts


def is_readable(facts: Facts) -> bool:
    """Tell whether a body is here as Ollama reads it: it unpacks zstd on ``/v1``."""
    body, route = facts.body, facts.route
    if not body.complete or not route.takes_json:
        return False
    return route.family is Family.NATIVE or body.encoding != "zstd"


def look(facts: Facts) -> BodyFields | None:
    """Return the fields of a body; None if it can't be looked at."""
    if not is_readable(facts):
        return None
    try:
        return read_fields(facts.body.head)
    except (ValueError, UnreadBodyError):
        return None
