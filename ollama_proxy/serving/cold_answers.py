"""Answer requests for Ollama while no instance is ready, from what is known.

A read gets the state of the last instance; a request that needs an instance is not
answered here.
"""

from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

import msgspec

from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.catalog import Catalog
from ollama_proxy.core.ollama.error_bodies import (
    JSON_TYPE,
    SPOKE,
    ProvisioningStatus,
    error_body,
    escape_html,
    provisioning_body,
)
from ollama_proxy.core.ollama.go_words import go_quoted
from ollama_proxy.core.ollama.model_names import shown_model_name
from ollama_proxy.core.ollama.native_refusals import digest_refusal, name_refusal
from ollama_proxy.core.ollama.redirects import redirect_of
from ollama_proxy.core.ollama.request_fields import BodyFields
from ollama_proxy.core.ollama.routes import ColdAnswer, Family, Route, allow_header

ASLEEP: Final = "asleep"
"""The status of our 503 to a request that may not wake an instance.

It asks libraries not to repeat the request: nothing of theirs wakes one meanwhile.
"""

_ROOT = b"Ollama is running"
_NO_MODELS_RUN = b'{"models":[]}'
_CLOUD_STATUS = b'{"cloud":{"disabled":false,"source":"none"}}'
_COPILOT = "GitHubCopilotChat/"
_NO_RECOMMENDATIONS = b'{"recommendations":[]}'


def root() -> Reply:
    """Answer ``GET /`` and ``HEAD /``: the CLI asks this first, always."""
    return Reply(200, _ROOT, (("Content-Type", "text/plain; charset=utf-8"),))


def plain(status: int, text: str) -> Reply:
    """Answer as Go's router does for an unknown path."""
    headers = (("Content-Type", "text/plain"), (SPOKE, "asleep"))
    return Reply(status, text.encode(), headers)


def json_reply(body: bytes, *, status: int = 200, family: Family) -> Reply:
    """Answer with a JSON body; the type has a charset on native routes only."""
    kind = JSON_TYPE if family is Family.NATIVE else "application/json"
    return Reply(status, body, (("Content-Type", kind), (SPOKE, "asleep")))


def provisioning_reply(
    family: Family, waiting: ProvisioningStatus, request_id: str
) -> Reply:
    """Return the answer while no instance is ready, with when to ask again, if ever."""
    body = provisioning_body(family, waiting, request_id=request_id)
    again, is_asleep = waiting.retry_after, waiting.status == ASLEEP
    headers = (
        ("Content-Type", JSON_TYPE),
        *((("Retry-After", str(again)),) if again is not None else ()),
        *((("x-should-retry", "false"),) if is_asleep else ()),
        ("Cache-Control", "no-store"),
        (SPOKE, waiting.status),
    )
    return Reply(503, body, headers)


class ColdAnswers:
    """Answers by route, from the catalogue."""

    def __init__(self, catalogue: Catalog) -> None:
        self._catalogue = catalogue
        self._fixed: dict[ColdAnswer, Callable[[], bytes]] = {
            ColdAnswer.VERSION: catalogue.version,
            ColdAnswer.TAGS: catalogue.tags,
            ColdAnswer.MODELS: catalogue.openai_models,
            ColdAnswer.PS: lambda: _NO_MODELS_RUN,
            ColdAnswer.STATUS: lambda: _CLOUD_STATUS,
            ColdAnswer.RECOMMENDATIONS: lambda: _NO_RECOMMENDATIONS,
        }

    def answer(  # noqa: PLR0911 - one line of a table each
        self,
        route: Route,
        method: str,
        target: str,
        fields: BodyFields | None,
        agent: str = "",
    ) -> Reply:
        """Return the answer to a request that wakes nothing.

        ``target``: path and query as the client sent them; ``agent``: its User-Agent.
        """
        path = target.partition("?")[0]
        if (body := self._fixed.get(route.asleep)) is not None:
            return json_reply(_written(body(), route.family), family=route.family)
        match route.asleep:
            case ColdAnswer.ROOT:
                return root()
            case ColdAnswer.SHOW:
                return self._show(fields or BodyFields(), agent)
            case ColdAnswer.MODEL:
                return self._model(unquote(path.rpartition("/")[2]))
            case ColdAnswer.ACCOUNT:
                return _error(route.family, 503, "account unavailable")
            case ColdAnswer.CLOUD:
                return _error(
                    route.family, 503, "web search needs a running instance; none is up"
                )
            case ColdAnswer.BLOB:
                return _blob(path)
            case ColdAnswer.REDIRECT:
                return _redirect(method, target)
            case ColdAnswer.METHOD:
                refused = plain(405, "405 method not allowed")
                return refused.with_headers(("Allow", allow_header(path)))
            case _:
                return plain(404, "404 page not found")

    def hidden(self, route: Route, target: str, fields: BodyFields | None) -> Reply:
        """Return the answer about a model that is not in the catalogue, or hidden."""
        if route.asleep is ColdAnswer.SHOW:
            return _no_model(Family.NATIVE, (fields or BodyFields()).model_name)
        name = unquote(target.partition("?")[0].rpartition("/")[2])
        if (refused := name_refusal(name)) is not None:
            return _error(Family.OPENAI, refused.status, refused.message)
        return _no_model(Family.OPENAI, name)

    def _show(self, fields: BodyFields, agent: str) -> Reply:
        if not fields.model_name:
            return _error(Family.NATIVE, 400, "model is required")
        body = self._catalogue.show(fields.model_name)
        if body is None:
            return _no_model(Family.NATIVE, fields.model_name)
        if agent.startswith(_COPILOT):
            body = _with_basename(body, fields.model_name)
        return json_reply(body, family=Family.NATIVE)

    def _model(self, name: str) -> Reply:
        if (refused := name_refusal(name)) is not None:
            return _error(Family.OPENAI, refused.status, refused.message)
        body = self._catalogue.openai_model(name)
        if body is None:
            return _no_model(Family.OPENAI, name)
        return json_reply(_written(body, Family.OPENAI), family=Family.OPENAI)


def _no_model(family: Family, name: str) -> Reply:
    return _error(family, 404, f"model '{shown_model_name(name)}' not found")


def _blob(path: str) -> Reply:
    """Say that a blob is not here: it may be on the instance's disk."""
    refused = digest_refusal(path)
    if refused is not None:
        return _error(Family.NATIVE, refused.status, refused.message)
    digest = go_quoted(unquote(path.rpartition("/")[2]))
    return _error(Family.NATIVE, 404, f"blob {digest} not found")


def _written(body: bytes, family: Family) -> bytes:
    """Return a body as Ollama writes it: a translated one ends with a newline."""
    return body if family is Family.NATIVE or body.endswith(b"\n") else body + b"\n"


def _with_basename(show: bytes, name: str) -> bytes:
    """Return a description with the requested name as ``general.basename``.

    Ollama does the same for Copilot, which identifies models by it.
    """
    body = msgspec.json.decode(show, type=dict[str, msgspec.Raw])
    info = msgspec.json.decode(body.get("model_info", msgspec.Raw(b"{}")))
    named = (info or {}) | {"general.basename": name}
    return msgspec.json.encode(body | {"model_info": named})


def _redirect(method: str, target: str) -> Reply:
    to = redirect_of(method, target)
    headers = (("Location", to.location), (SPOKE, "asleep"))
    if to.html is None:
        return Reply(to.status, headers=headers)
    typed = (*headers, ("Content-Type", "text/html; charset=utf-8"))
    return Reply(to.status, to.html.encode(), typed)


def _error(family: Family, status: int, message: str) -> Reply:
    body = _written(escape_html(error_body(family, status, message)), family)
    return json_reply(body, status=status, family=family)
