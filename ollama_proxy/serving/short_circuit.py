"""Requests on inference paths that need no instance, answered without one.

An unload, a request for no model or for one that is not there, and, as the settings
have it, a load, a health check and a request for a model that runs at ollama.com.
"""

from collections.abc import Callable, Collection
from typing import Protocol

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.http.headers import media_type
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.answer_end import Head
from ollama_proxy.core.ollama.catalog import rfc3339
from ollama_proxy.core.ollama.cold_refusals import refusal
from ollama_proxy.core.ollama.error_bodies import (
    ProvisioningStatus,
    empty_answer,
    error_body,
    escape_html,
)
from ollama_proxy.core.ollama.go_json import UnreadBodyError
from ollama_proxy.core.ollama.model_fate import Fate, absence, sought_name
from ollama_proxy.core.ollama.native_refusals import Refusal, digest_refusal
from ollama_proxy.core.ollama.routes import (
    BodyFields,
    Family,
    Kind,
    Need,
    need_of,
    read_fields,
)
from ollama_proxy.serving.cold_answers import json_reply, provisioning_reply
from ollama_proxy.serving.idle_ignores import IdleIgnores
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.serving.unknown_models import UnknownModels

_LOAD_BYTES = 4096
_LOOKED_BYTES = 1024 * 1024
_OK = 200
_NOT_FOUND = 404
_LATER = "; no list names it yet, and it is looked for again in {} min"
_NO_CLOUD = (
    "cloud models run at ollama.com and wake no instance; ask again while one is up, "
    "or ask ollama.com itself"
)


class ReadableBody(Protocol):
    """A body that can be looked at, as far as it is here."""

    @property
    def head(self) -> bytes:
        """What was read into memory so far."""

    @property
    def complete(self) -> bool:
        """Whether that is all."""

    @property
    def encoding(self) -> str:
        """How it is compressed, say; empty if it is not."""


class RefusedError(Exception):
    """The request was refused on the way; carries the reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class ShortCircuit:
    """Tells which requests need no instance.

    ``spared``: `Need.LOAD` and `Need.CLOUD`, if these are to wake none either.
    ``unknown`` tells which models are not there. ``ignores`` names requests that wake
    none; ``unwoken`` tells why there is none for them. ``version`` tells that of the
    Ollama that would be asked.
    """

    def __init__(
        self,
        spared: Collection[Need],
        unknown: UnknownModels,
        ignores: IdleIgnores,
        unwoken: Callable[[], ProvisioningStatus],
        version: Callable[[], str],
        clock: Clock,
    ) -> None:
        self._spared = frozenset(spared)
        self._unknown = unknown
        self._ignores = ignores
        self._unwoken = unwoken
        self._version = version
        self._clock = clock

    def fields(self, context: RequestContext, body: ReadableBody) -> BodyFields | None:
        """Look at a request that would wake an instance; None if it can't be looked at.

        Raises `RefusedError` if a real Ollama refuses it, whatever models it has.
        """
        refused = _refusal_of(context, body, self._version())
        if refused is not None:
            raise RefusedError(_refused(context, refused))
        return _look(context, body)

    def wants_none(self, context: RequestContext, body: ReadableBody) -> bool:
        """Tell whether a request is no use of the instance that is up.

        To be asked of every request, so it looks closely only where it may be so. A
        body that can't be read is left to the instance to refuse.
        """
        if self._is_ignored(context, None):
            return True
        if context.route.kind is not Kind.INFERENCE or not body.complete:
            return False
        if not self._may_be_spared(body.head):
            return False
        fields = _look(context, body)
        if fields is None:
            return False
        need = need_of(context.route.name, fields)
        is_spared = need in self._spared or need is Need.UNLOAD
        return is_spared or self._is_ignored(context, fields)

    def _may_be_spared(self, body: bytes) -> bool:
        """Tell whether a body is worth to be read for what it needs."""
        if Need.CLOUD in self._spared and b"cloud" in body:
            return True
        if Need.LOAD in self._spared and len(body) < _LOAD_BYTES:
            return True
        lower = body.lower()
        if self._ignores.reads_bodies and (b"max_" in lower or b"num_pr" in lower):
            return True
        return b"keep_alive" in lower

    def _is_ignored(self, context: RequestContext, fields: BodyFields | None) -> bool:
        """Tell whether the settings name a request as no use.

        A change of models is use whoever makes it.
        """
        route = context.route
        if route.kind is Kind.WRITE:
            return False
        ignores = self._ignores
        return ignores.match(context.agent, context.path, route.family, fields)

    def answer(
        self, context: RequestContext, fields: BodyFields | None
    ) -> Reply | None:
        """Answer what needs no instance; None for what does.

        ``fields`` are None if the body can't be looked at.
        """
        if fields is None:
            is_ignored = self._is_ignored(context, None)
            return self._unwoken_reply(context) if is_ignored else None
        is_inference = context.route.kind is Kind.INFERENCE
        need = need_of(context.route.name, fields) if is_inference else Need.INSTANCE
        if need in self._spared | {Need.NO_MODEL, Need.UNLOAD}:
            return self._without_one(context, fields, need)
        return self._unless_known(context, fields)

    def _without_one(
        self, context: RequestContext, fields: BodyFields, need: Need
    ) -> Reply:
        """Answer a request whose body tells that it needs no instance."""
        match need:
            case Need.NO_MODEL if context.route.name == "/api/generate":
                return _refusal(context, 404, "model '' not found")
            case Need.NO_MODEL:
                return _refusal(context, 400, "model is required")
            case Need.CLOUD:
                return _refusal(context, 503, _NO_CLOUD)
            case _ if self._unknown.judge(fields.model_name) is Fate.ABSENT:
                return _absence(context, fields.model_name)
            case _:
                return self._empty(context, fields, need.value)

    def _unless_known(
        self, context: RequestContext, fields: BodyFields
    ) -> Reply | None:
        """Answer a request for a model that is not there; None for any other."""
        name = sought_name(context.route, fields)
        if self._is_ignored(context, fields):
            is_absent = bool(name) and self._unknown.judge(name) is Fate.ABSENT
            if not is_absent:
                return self._unwoken_reply(context)
            return _absence(context, name)
        match self._unknown.admit(name):
            case Fate.JOIN:
                context.joins = True
                return None
            case Fate.ABSENT:
                return _absence(context, name)
            case Fate.LATER:
                minutes = max(1, round(self._unknown.next_look_s() / 60.0))
                return _absence(context, name, _LATER.format(minutes))
            case _:
                return None

    def hear(self, context: RequestContext, body: ReadableBody, answer: Head) -> None:
        """Learn from an instance's own answer whether it has a model.

        An older Ollama answers a route that it does not know with 404 and plain text.
        To be told of every answer, so it looks closely only where there may be
        something to learn.
        """
        status = answer.status
        is_absent = status == _NOT_FOUND and "json" in media_type(answer.headers)
        is_short = len(body.head) <= _LOOKED_BYTES
        is_there = status == _OK and is_short and self._unknown.learns_of_presence
        if not is_absent and not is_there:
            return
        fields = _look(context, body)
        if fields is not None and (name := sought_name(context.route, fields)):
            self._unknown.heard(name, is_there=is_there)

    def _unwoken_reply(self, context: RequestContext) -> Reply:
        """Tell that there is no instance, and that this request brings none."""
        context.outcome = "provisioning"
        family = context.route.family
        return provisioning_reply(family, self._unwoken(), context.request_id)

    def _empty(self, context: RequestContext, fields: BodyFields, reason: str) -> Reply:
        context.outcome = "asleep"
        created_at = rfc3339(self._clock.wall())
        body = empty_answer(context.route.name, fields.model_name, created_at, reason)
        return json_reply(body, family=Family.NATIVE)


def _absence(context: RequestContext, name: str, more: str = "") -> Reply:
    """Tell that a model is not there, in the words that its route has for that."""
    return _refusal(context, 404, absence(context.route.name, name) + more)


def _is_readable(context: RequestContext, body: ReadableBody) -> bool:
    """Tell whether a body is here as Ollama reads it: it unpacks zstd on ``/v1``."""
    is_packed = body.encoding == "zstd" and context.route.family is not Family.NATIVE
    return body.complete and context.route.takes_json and not is_packed


def _look(context: RequestContext, body: ReadableBody) -> BodyFields | None:
    if not _is_readable(context, body):
        return None
    try:
        return read_fields(body.head)
    except (ValueError, UnreadBodyError):
        return None


def _refusal_of(
    context: RequestContext, body: ReadableBody, version: str
) -> Refusal | None:
    if context.route.name == "/api/blobs/:digest":
        return digest_refusal(context.path)
    if not _is_readable(context, body):
        return None
    return refusal(context.route.name, body.head, version)


def _refused(context: RequestContext, refused: Refusal) -> Reply:
    """Return a refusal as Ollama writes it: what it translates ends with a newline."""
    context.outcome = "refused"
    family = context.route.family
    status, message = refused.status, refused.message
    body = error_body(family, status, message, request_id=context.request_id)
    body = escape_html(body) + (b"\n" if refused.is_translated else b"")
    typed_as = Family.NATIVE if refused.has_charset else Family.OPENAI
    return json_reply(body, status=status, family=typed_as)


def _refusal(context: RequestContext, status: int, message: str) -> Reply:
    is_native = context.route.family is Family.NATIVE
    refused = Refusal(
        status, message, is_translated=not is_native, has_charset=is_native
    )
    return _refused(context, refused)
