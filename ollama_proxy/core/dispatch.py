"""Decide how one request is answered: one place for both servers. Pure.

A server fills in `Facts` and calls `decide` for a plan. It carries the plan out, adds
its result to the facts, and calls again until the plan is a response or an instance has
responded. Access was checked before: see `ollama_proxy.server.access`.
"""

from ollama_proxy.core.body_look import is_readable, look
from ollama_proxy.core.key_admission import plan_by_key
from ollama_proxy.core.ollama.cold_refusals import refusal
from ollama_proxy.core.ollama.model_fate import Fate, sought_name
from ollama_proxy.core.ollama.native_refusals import Refusal, digest_refusal
from ollama_proxy.core.ollama.request_fields import BodyFields, Need, need_of
from ollama_proxy.core.ollama.routes import BLOBS, ColdAnswer, Kind, Route
from ollama_proxy.core.plans import (
    Gather,
    Known,
    Observe,
    Plan,
    Read,
    Reading,
    Refuse,
    Relay,
    Say,
    Unavailable,
    Wait,
)
from ollama_proxy.core.pool_choice import LISTS, choose_pool
from ollama_proxy.core.refusing import refuse, refuse_absent
from ollama_proxy.core.request_facts import Facts, Fleet

_PATIENT = frozenset({ColdAnswer.CLOUD, ColdAnswer.ACCOUNT, ColdAnswer.NOT_FOUND})
_LOAD_BYTES = 4096
_NO_CLOUD = (
    "cloud models run at ollama.com and wake no instance; ask again while one is up, "
    "or ask ollama.com itself"
)
_LATER = "; no list names it yet, and it is looked for again in {} min"

_LOOP, _ROOT, _UNWOKEN = Say(Known.LOOP), Say(Known.ROOT), Say(Known.UNWOKEN)
_READ = {upto: Read(upto) for upto in Reading}
_OBSERVE, _RELAY = Observe(None), Relay()


def decide(facts: Facts, fleet: Fleet) -> Plan:
    """Return the plan for one request that may pass.

     1. It passed this proxy, or too many, before     -> Say(LOOP): 508
     2. ``/``                                         -> Say(ROOT)
     3. Its key has to be asked                       -> see `plan_by_key`
        Its pool is not chosen yet, of several        -> see `choose_pool`
     4. More of its body is needed for what follows   -> Read

    What only reads:

     5. Several instances make up the list, or its
        key may see a part of it                      -> Gather
     6. An instance is ready and was not asked yet    -> Observe, for 5 s
     7. It may have carried out an unknown request    -> Unavailable: 503
     8. Ollama would refuse it, whatever its models   -> Refuse
     9. Else                                          -> Say(COLD)

    What is use of an instance:

    10. One is ready; its body is not counted as use  -> Observe
    11. One is ready and was not asked yet            -> Relay
    12. It failed, and can't be sent again            -> Unavailable: 503
    13. The body is JSON and not all here             -> Read
    14. It needs no instance, or must start none      -> Refuse, Say(DONE or UNWOKEN)
    15. It waited in vain, or failed and may not wait -> Unavailable: 503
    16. Else                                          -> Wait, for no time perhaps

    A request that may not wake an instance waits for a launch that others caused.
    """
    if facts.objection is not None:  # (1)
        return _LOOP
    if facts.route.asleep is ColdAnswer.ROOT:  # (2)
        return _ROOT
    if (plan := _of_key_or_pool(facts, fleet)) is not None:  # (3)
        return plan
    if not facts.body.complete and facts.reading < (upto := _reading(facts.route)):
        return _READ[upto]  # (4)
    if facts.route.counts_as_use:
        return _of_use(facts, fleet)
    return _of_read(facts, fleet)


def _of_key_or_pool(facts: Facts, fleet: Fleet) -> Plan | None:
    """Return what it takes to pass the key, then to choose the pool; None: nothing."""
    plan = None if facts.is_admitted else plan_by_key(facts)
    if plan is None:
        return None if facts.is_routed else choose_pool(facts, fleet.pools)
    is_hidden = isinstance(plan, Say) and facts.route.asleep is ColdAnswer.SHOW
    refused = _refusal_of(facts, fleet) if is_hidden else None
    return plan if refused is None else Refuse(refused)


def _reading(route: Route) -> Reading:
    """Return how much of a body is read before anything else is decided."""
    if not route.counts_as_use:
        return Reading.SMALL if route.kind is Kind.UNKNOWN else Reading.WHOLE
    is_change = route.kind is Kind.WRITE and route.takes_json
    return Reading.WHOLE if is_change else Reading.SMALL


def _of_read(facts: Facts, fleet: Fleet) -> Plan:
    """Decide on a request that does not reset the idle timer, by its route."""
    route = facts.route
    if route.asleep in LISTS and (fleet.has_several or facts.sees_some):  # (5)
        return Gather(fleet.name)
    is_unknown = route.kind is Kind.UNKNOWN
    can_be_sent = facts.body.complete or is_unknown
    is_ours = route.kind is Kind.ADMIN  # an unknown one, or its method
    if can_be_sent and not is_ours and not facts.tried and fleet.is_ready:  # (6)
        is_patient = route.asleep in _PATIENT
        return _OBSERVE if is_patient else Observe(fleet.read_limit_s)
    if is_unknown and facts.may_be_done:  # (7)
        return Unavailable(facts.problem)
    if route.asleep is not ColdAnswer.SHOW:  # (9)
        return Say(Known.COLD)
    if (refused := _refusal_of(facts, fleet)) is not None:  # (8)
        return Refuse(refused)
    return Say(Known.COLD, look(facts))


def _of_use(facts: Facts, fleet: Fleet) -> Plan:
    """Decide on a request that wakes an instance, or does so by its route."""
    if not facts.tried and fleet.is_ready:
        return _OBSERVE if is_no_use(facts, fleet) else _RELAY  # (10), (11)
    failed = facts.problem is not None
    if failed and (facts.may_be_done or not facts.body.complete):  # (12)
        return Unavailable(facts.problem)
    wait = facts.admitted
    if wait is None:
        can_read = facts.route.takes_json and not facts.body.complete
        if can_read and facts.reading < Reading.WHOLE:  # (13)
            return _READ[Reading.WHOLE]
        plan = _without_instance(facts, fleet)
        if not isinstance(plan, Wait):  # (14)
            return plan
        wait = plan if facts.may_wake else Wait(plan.fields, joins=True)
    if facts.waited or (failed and facts.may_wait_s <= 0):  # (15)
        return Unavailable(facts.problem)
    return wait  # (16)


def _without_instance(facts: Facts, fleet: Fleet) -> Plan:
    """Decide on a request that would start an instance: `Wait` if it may.

    A body that can't be parsed is left to the instance.
    """
    if (refused := _refusal_of(facts, fleet)) is not None:
        return Refuse(refused)
    fields = look(facts)
    if fields is None:
        return _UNWOKEN if _is_ignored(facts, fleet, None) else Wait()
    if facts.route.kind is Kind.INFERENCE:
        need = need_of(facts.route.name, fields)
        if need in {Need.NO_MODEL, Need.UNLOAD} or need in fleet.spared:
            return _of_need(facts, fleet, fields, need)
    return _of_model(facts, fleet, fields)


def _of_need(facts: Facts, fleet: Fleet, fields: BodyFields, need: Need) -> Plan:
    """Decide on a request whose body says that it needs no instance."""
    match need:
        case Need.NO_MODEL if facts.route.name == "/api/generate":
            return refuse(facts.route, 404, "model '' not found")
        case Need.NO_MODEL:
            return refuse(facts.route, 400, "model is required")
        case Need.CLOUD:
            return refuse(facts.route, 503, _NO_CLOUD)
        case _ if fleet.fate(fields.model_name) is Fate.ABSENT:
            return refuse_absent(facts.route, fields.model_name)
        case _:
            return Say(Known.DONE, fields)


def _of_model(facts: Facts, fleet: Fleet, fields: BodyFields) -> Plan:
    """Decide by the model that a request can't do without."""
    name = sought_name(facts.route, fields)
    fate = fleet.fate(name) if name else Fate.PASS
    if _is_ignored(facts, fleet, fields):
        return refuse_absent(facts.route, name) if fate is Fate.ABSENT else _UNWOKEN
    match fate:
        case Fate.ABSENT:
            return refuse_absent(facts.route, name)
        case Fate.LATER:
            minutes = max(1, round(fleet.next_look_s() / 60.0))
            return refuse_absent(facts.route, name, _LATER.format(minutes))
        case Fate.JOIN:
            return Wait(fields, joins=True)
        case Fate.WAKE:
            return Wait(fields, seeks=name)
        case Fate.PASS:
            return Wait(fields)


def is_no_use(facts: Facts, fleet: Fleet) -> bool:
    """Tell whether a request does not count as use of the running instance.

    Called for every request, so a body is parsed only if it may matter. A body that
    can't be parsed is left for the instance to refuse.
    """
    if fleet.ignores_some and _is_ignored(facts, fleet, None):
        return True
    if facts.route.kind is not Kind.INFERENCE or not facts.body.complete:
        return False
    if not _may_be_no_use(facts.body.head, fleet):
        return False
    fields = look(facts)
    if fields is None:
        return False
    need = need_of(facts.route.name, fields)
    is_spared = need is Need.UNLOAD or need in fleet.spared
    return is_spared or _is_ignored(facts, fleet, fields)


def _may_be_no_use(body: bytes, fleet: Fleet) -> bool:
    """Tell whether a body must be parsed to know what it needs."""
    if Need.CLOUD in fleet.spared and b"cloud" in body:
        return True
    if Need.LOAD in fleet.spared and len(body) < _LOAD_BYTES:
        return True
    lower = body.lower()
    if fleet.reads_bodies and (b"max_" in lower or b"num_pr" in lower):
        return True
    return b"keep_alive" in lower


def _is_ignored(facts: Facts, fleet: Fleet, fields: BodyFields | None) -> bool:
    """Tell whether the settings ignore a request as use; never a change of models."""
    route = facts.route
    if not fleet.ignores_some or route.kind is Kind.WRITE:
        return False
    return fleet.ignores(facts.agent, facts.path, route.family, fields)


def _refusal_of(facts: Facts, fleet: Fleet) -> Refusal | None:
    """Return how a real Ollama refuses a request, whatever models it has."""
    if facts.route.name == BLOBS:
        return digest_refusal(facts.path)
    if not is_readable(facts):
        return None
    return refusal(facts.route.name, facts.body.head, fleet.version)
