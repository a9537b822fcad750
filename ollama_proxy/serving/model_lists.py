"""Answer lists of models that several instances make up, or that a key sees a part of.

A model is listed once, from the pool that serves it: as its ready instances have it, or
as the catalogue knows it while the pool is asleep. What is loaded is listed of every
ready instance. A key with a right to some models sees these alone.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from ollama_proxy.core.access.allowed_models import may_use_model
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.ollama.error_bodies import SPOKE
from ollama_proxy.core.ollama.listed_models import ListedModel, openai_model_of
from ollama_proxy.core.ollama.loose_json import UNREADABLE
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.ollama.routes import ColdAnswer
from ollama_proxy.core.plans import Gather
from ollama_proxy.serving.cold_answers import json_reply
from ollama_proxy.serving.instance_reads import read_of_all
from ollama_proxy.serving.pool_map import PoolMap
from ollama_proxy.serving.pool_services import PoolServices
from ollama_proxy.serving.request_context import RequestContext
from ollama_proxy.upstream.client import UpstreamClient

_LONG_AGO = datetime.fromtimestamp(0, UTC)


class _Entries(msgspec.Struct):
    """Holds the entries of ``/api/tags`` or ``/api/ps``, unchanged."""

    models: list[msgspec.Raw] | None = None


class ModelLists:
    """Makes the lists of all pools, or of one."""

    def __init__(self, pools: PoolMap, relay: UpstreamClient) -> None:
        self._pools = pools
        self._relay = relay

    async def reply(self, context: RequestContext, plan: Gather) -> Reply:
        """Answer a request for a list."""
        pools = [
            one for one in self._pools if plan.pool is None or one.name == plan.pool
        ]
        is_awake = any(one.pool.is_ready for one in pools)
        globs = context.key.rights.models if context.key is not None else ()
        match context.route.asleep:
            case ColdAnswer.PS:
                body = _listing(_visible(await self._loaded(pools), globs))
            case ColdAnswer.MODELS:
                body = _in_openai(await self._models(pools, globs))
            case _:
                models = await self._models(pools, globs)
                body = _listing(raw for _, raw in models)
        context.outcome = "relayed" if is_awake else "asleep"
        reply = json_reply(body, family=context.route.family)
        return reply.with_headers((SPOKE, "merged")) if is_awake else reply

    async def _loaded(self, pools: Iterable[PoolServices]) -> list[msgspec.Raw]:
        """Return what is loaded, instance after instance."""
        pools = list(pools)
        told = await asyncio.gather(*(self._ask(one, "/api/ps") for one in pools))
        of_nodes = [_raw(entry) for one in pools for entry in one.running_on_nodes()]
        asked = [
            entry for bodies in told for body in bodies for entry in _entries(body)
        ]
        return of_nodes + asked

    async def _models(
        self, pools: Iterable[PoolServices], globs: tuple[str, ...]
    ) -> list[tuple[ListedModel, msgspec.Raw]]:
        """Return every model that globs allow once, newest first, as Ollama does."""
        pools = list(pools)
        told = await asyncio.gather(*(self._ask(one, "/api/tags") for one in pools))
        found: dict[str, tuple[ListedModel, msgspec.Raw]] = {}
        for services, bodies in zip(pools, told, strict=True):
            # What is asleep, and what beats list, the catalogue has alone.
            if services.nodes is not None or not bodies:
                bodies.append(services.catalogue.tags())
            for body in bodies:
                for raw in _visible(_entries(body), globs):
                    listed = _listed(raw)
                    if listed is not None and self._is_of(services, listed.name):
                        found.setdefault(full_model_name(listed.name), (listed, raw))
        return sorted(found.values(), key=_modified_at, reverse=True)

    def _is_of(self, services: PoolServices, model: str) -> bool:
        """Tell whether a pool serves a model that its instances have."""
        if len(self._pools.names) == 1:
            return True
        return self._pools.of_model(model) == services.name

    async def _ask(self, services: PoolServices, path: str) -> list[bytes]:
        limit_s = services.fleet.read_limit_s
        return await read_of_all(self._relay, services.pool, path, limit_s=limit_s)


def _entries(body: bytes) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(body, type=_Entries).models or []
    except UNREADABLE:
        return []


def _visible(
    entries: list[msgspec.Raw], globs: tuple[str, ...]
) -> Iterable[msgspec.Raw]:
    """Yield the entries of models that globs allow; of an unreadable one, none does."""
    if not globs:
        return entries
    listed = ((raw, _listed(raw)) for raw in entries)
    return (
        raw for raw, one in listed if one is not None and may_use_model(globs, one.name)
    )


def _raw(entry: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(entry))


def _listed(raw: msgspec.Raw) -> ListedModel | None:
    try:
        return msgspec.json.decode(raw, type=ListedModel)
    except UNREADABLE:
        return None


def _listing(entries: Iterable[msgspec.Raw]) -> bytes:
    return msgspec.json.encode({"models": list(entries)})


def _in_openai(models: Iterable[tuple[ListedModel, msgspec.Raw]]) -> bytes:
    data = [openai_model_of(listed) for listed, _ in models] or None
    return msgspec.json.encode({"object": "list", "data": data}) + b"\n"


def _modified_at(model: tuple[ListedModel, msgspec.Raw]) -> datetime:
    try:
        moment = datetime.fromisoformat(model[0].modified_at)
    except ValueError:
        return _LONG_AGO
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
