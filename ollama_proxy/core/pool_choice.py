"""Choose the pool that serves a request, before any instance is leased. Pure.

Called only if there are several pools, or if a single instance alone has something.
"""

from typing import Final
from urllib.parse import unquote

import msgspec

from ollama_proxy.core.body_look import look
from ollama_proxy.core.ollama.body_model import model_in_form, model_in_json
from ollama_proxy.core.ollama.loose_json import read_loosely
from ollama_proxy.core.ollama.routes import (
    BLOBS,
    TRANSCRIPTIONS,
    ColdAnswer,
    Family,
    Kind,
    Route,
)
from ollama_proxy.core.plans import (
    Choose,
    Gather,
    Plan,
    Read,
    Reading,
    Seek,
    Unavailable,
)
from ollama_proxy.core.refusing import refuse, refuse_absent
from ollama_proxy.core.request_facts import Facts, PoolChoices

SOUGHT_BYTES: Final = 32 * 1024 * 1024
"""How many bytes of a body are read to see its model."""

LISTS: Final = frozenset({ColdAnswer.TAGS, ColdAnswer.MODELS, ColdAnswer.PS})
"""Answers that several instances make up."""

_CHANGES = frozenset({"/api/pull", "/api/create"})
_SEEK = Seek()
FULL = (
    "the bodies of waiting requests take up OLLAMA_PROXY_MAX_WAITING_BYTES, so the"
    " model of this one was not seen; try again later"
)
_PACKED = (
    "the body is packed (zstd), so its model can't be seen, and it chooses one of the"
    " pools {}; send the body as it is"
)
_UNSEEN = (
    "the model of the request was not seen in its first 32 MB, and it chooses one of"
    ' the pools {}; put "model" before what is long'
)
_NO_SUCH_POOL = "no pool is named {!r}; there are {}"
_NO_POOL = "; no pool serves it: there are {}"
_ELSEWHERE = (
    "the model {!r} is one of the pool {!r}, but files go to an instance of the pool"
    " {!r}; give it a name of that pool, or set uploads = true in [pools.{}]"
)
_FAR_COPY = (
    "the copy {!r} would be a model of {}, but it is made where {!r} is, in the pool"
    " {!r}; give it a name of that pool"
)


class _Files(msgspec.Struct):
    """Holds the files that ``/api/create`` makes a model of, and a copy's name."""

    files: dict[str, str] = {}
    adapters: dict[str, str] = {}
    destination: str = ""


def choose_pool(facts: Facts, pools: PoolChoices) -> Plan:
    """Return the pool of a request, or what it takes to find that out.

    Of a request without a model, where there are several pools:

    a. It names a pool                          -> Choose it; Refuse: 400 if unknown
    b. It asks for a list                       -> Gather
    c. It brings a file, or asks for one        -> Choose the pool that takes files
    d. Its route is one that a pool answered    -> Choose that pool
    e. Else                                     -> Choose the first that is awake

    Of a request for a model:

    f. The model stands in the path             -> Choose its pool
    g. The body is packed, or too long to see   -> Refuse: 415, 413
    h. The model was not seen yet               -> Read, Seek
    i. There is none                            -> as e
    j. No pool serves it                        -> Refuse: 404, or 400 of a change
    k. A copy, or a file, would be in another   -> Refuse: 400
    l. Else                                     -> Choose its pool, or its one instance
    """
    route = facts.route
    if not _has_model(route):
        return _without_model(facts, pools)
    if route.asleep is ColdAnswer.MODEL:  # (f)
        return _of_model(facts, pools, _last_part(facts.path))
    return _by_body(facts, pools)


def _by_body(facts: Facts, pools: PoolChoices) -> Plan:
    """Choose the pool of a request whose body names its model."""
    if len(pools.names) > 1 and _is_packed(facts):  # (g)
        return refuse(facts.route, 415, _PACKED.format(_listed(pools)))
    if (more := _to_read(facts)) is not None:  # (h)
        return more
    model = seen_model(facts)
    is_all = facts.body.complete and len(facts.body.head) <= SOUGHT_BYTES
    if model is None and not is_all:
        return _unseen(facts, pools)
    if not model:  # (i)
        return _any(pools)
    return _of_model(facts, pools, model)


def _has_model(route: Route) -> bool:
    """Tell whether requests of a route are for one model."""
    if route.kind is Kind.INFERENCE or route.asleep is ColdAnswer.SHOW:
        return True
    if route.asleep is ColdAnswer.MODEL:
        return True
    return route.kind is Kind.WRITE and route.name != BLOBS


def _without_model(facts: Facts, pools: PoolChoices) -> Plan:
    """Choose the pool of a request that is for no model."""
    names, route = pools.names, facts.route
    if facts.named_pool and len(names) > 1:  # (a)
        if facts.named_pool in names:
            return _in_pool(facts, pools, facts.named_pool)
        return refuse(
            route, 400, _NO_SUCH_POOL.format(facts.named_pool, _listed(pools))
        )
    if route.asleep in LISTS:  # (b)
        return Gather() if len(names) > 1 else Choose(names[0])
    if route.name == BLOBS:  # (c)
        return _in_pool(facts, pools, pools.uploads)
    if route.asleep is ColdAnswer.WAKE:  # (d)
        answered = pools.of_route(facts.method, facts.path)
        return Choose(answered) if answered is not None else _any(pools)
    return _any(pools)  # (e)


def _in_pool(facts: Facts, pools: PoolChoices, pool: str) -> Choose:
    """Choose a pool, and of it the instance that files go to."""
    is_file = facts.route.name == BLOBS
    return Choose(pool, pools.instance_with(pool, ()) if is_file else None)


def _any(pools: PoolChoices) -> Choose:
    return Choose(pools.awake() or pools.names[0])


def _is_packed(facts: Facts) -> bool:
    """Tell whether Ollama unpacks the body, which is not done here."""
    return facts.route.family is not Family.NATIVE and facts.body.encoding == "zstd"


def _to_read(facts: Facts) -> Plan | None:
    """Return what of the body has to be read, if anything."""
    if facts.body.complete:
        return None
    is_change = facts.route.kind is Kind.WRITE
    if is_change and facts.reading < Reading.WHOLE:
        return Read(Reading.WHOLE)
    return None if facts.sought or is_seen(facts.route, facts.body.head) else _SEEK


def is_seen(route: Route, head: bytes) -> bool:
    """Tell whether the beginning of a body says its model."""
    return _in_beginning(route, head) is not None


def _in_beginning(route: Route, head: bytes) -> str | None:
    """Return the model in the first 32 MB of a body, however much is here."""
    if len(head) > SOUGHT_BYTES:
        head = head[:SOUGHT_BYTES]
    return model_in_form(head) if route.name == TRANSCRIPTIONS else model_in_json(head)


def seen_model(facts: Facts) -> str | None:
    """Return the model that a body names; None if it was not seen."""
    route = facts.route
    is_short = len(facts.body.head) <= SOUGHT_BYTES
    if is_short and (fields := look(facts)) is not None:
        is_copy = route.name == "/api/copy"
        return fields.source_name if is_copy else fields.model_name
    return _in_beginning(route, facts.body.head)


def _unseen(facts: Facts, pools: PoolChoices) -> Plan:
    """Answer a request whose model was not seen in what could be read."""
    if len(pools.names) == 1:
        return Choose(pools.names[0])
    if len(facts.body.head) < SOUGHT_BYTES:
        return Unavailable(FULL)
    return refuse(facts.route, 413, _UNSEEN.format(_listed(pools)))


def _of_model(facts: Facts, pools: PoolChoices, model: str) -> Plan:
    """Choose the pool of a model, and the instance that alone has it."""
    route, names = facts.route, pools.names
    pool = pools.of_model(model) if len(names) > 1 else names[0]
    if pool is None:  # (j)
        if route.name in _CHANGES:
            words = f"no pool serves the model {model!r}; there are {_listed(pools)}"
            return refuse(route, 400, words)
        return refuse_absent(route, model, _NO_POOL.format(_listed(pools)))
    if route.kind is Kind.WRITE:
        return _of_change(facts, pools, pool, model)
    return Choose(pool, pools.instance_of(pool, model), model)


def _of_change(facts: Facts, pools: PoolChoices, pool: str, model: str) -> Plan:
    """Choose where models are changed: where the files are, or the model itself."""
    route = facts.route
    change = read_loosely(facts.body.head, _Files) or _Files()
    if route.name == "/api/copy" and (far := _far_copy(pools, pool, change)):  # (k)
        return refuse(
            route, 400, _FAR_COPY.format(change.destination, far, model, pool)
        )
    digests = {*change.files.values(), *change.adapters.values()}
    if route.name != "/api/create" or not digests:
        return Choose(pool, pools.instance_of(pool, model), model)
    there = pools.instance_with(pool, digests)
    if there is None and pool != pools.uploads:  # (k)
        words = _ELSEWHERE.format(model, pool, pools.uploads, pool)
        return refuse(route, 400, words)
    return Choose(pool, there, model)


def _far_copy(pools: PoolChoices, pool: str, change: _Files) -> str:
    """Return whose model a copy would be, if it is not its source's pool; else ""."""
    if len(pools.names) == 1 or not change.destination:
        return ""
    other = pools.of_model(change.destination)
    if other == pool:
        return ""
    return "no pool" if other is None else f"the pool {other!r}"


def _last_part(path: str) -> str:
    return unquote(path.rpartition("/")[2])


def _listed(pools: PoolChoices) -> str:
    return ", ".join(pools.names)
