"""Decide how one request is answered: one place for both servers. Pure.

A server fills in `Facts` and calls `decide` for a plan. It carries the plan out, adds
its result to the facts, and calls again until the plan is a response or an instance has
responded. Access was checked before: see `ollama_proxy.server.access`.
"""

from ollama_proxy.core.ollama.cold_refusals import refusal
from ollama_proxy.core.ollama.go_json import UnreadBodyError
from ollama_proxy.core.ollama.model_fate import Fate, absence, sought_name
from ollama_proxy.core.ollama.native_refusals import Refusal, digest_refusal
from ollama_proxy.core.ollama.request_fields import (
    BodyFields,
    Need,
    need_of,
    read_fields,
)
from ollama_proxy.core.ollama.routes import ColdAnswer, Family, Kind, Route
from ollama_proxy.core.plans import (
    Facts,
    Fleet,
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
     3. More of its body is needed for what follows   -> Read

    What only reads:

     4. An instance is ready and was not asked yet    -> Observe, for 5 s
     5. It may have carried out an unknown request    -> Unavailable: 503
     6. Ollama would refuse it, whatever its models   -> Refuse
     7. Else                                          -> Say(COLD)

    What is use of an instance:

     8. One is ready; its body is not counted as use  -> Observe
     9. One is ready and was not asked yet            -> Relay
    10. It failed, and can't be sent again            -> Unavailable: 503
    11. The body is JSON and not all here             -> Read
    12. It needs no instance, or must start none      -> Refuse, Say(DONE or UNWOKEN)
    13. It waited in vain, or failed and may not wait -> Unavailable: 503
    14. Else                                          -> Wait, for no time perhaps
    """
    if facts.objection is not None:  # (1)
        return _LOOP
    if facts.route.asleep is ColdAnswer.ROOT:  # (2)
        return _ROOT
    if not facts.body.complete and facts.reading < (upto := _reading(facts.route)):
        return _READ[upto]  # (3)
    if facts.route.counts_as_use:
        return _of_use(facts, fleet)
    return _of_read(facts, fleet)


def _reading(route: Route) -> Reading:
    """Return how much of a body is read before anything else is decided."""
    if not route.counts_as_use:
        return Reading.SMALL if route.kind is Kind.UNKNOWN else Reading.WHOLE
    is_change = route.kind is Kind.WRITE and route.takes_json
    return Reading.WHOLE if is_change else Reading.SMALL


def _of_read(facts: Facts, fleet: Fleet) -> Plan:
    """Decide on a request that does not reset the idle timer, by its route."""
    route = facts.route
    is_unknown = route.kind is Kind.UNKNOWN
    can_be_sent = facts.body.complete or is_unknown
    is_ours = route.kind is Kind.ADMIN  # an unknown one, or its method
    if can_be_sent and not is_ours and not facts.tried and fleet.is_ready:  # (4)
        is_patient = route.asleep in _PATIENT
        return _OBSERVE if is_patient else Observe(fleet.read_limit_s)
    if is_unknown and facts.may_be_done:  # (5)
        return Unavailable(facts.problem)
    if route.asleep is not ColdAnswer.SHOW:  # (7)
        return Say(Known.COLD)
    if (refused := _refusal_of(facts, fleet)) is not None:  # (6)
        return Refuse(refused)
    return Say(Known.COLD, look(facts))


def _of_use(facts: Facts, fleet: Fleet) -> Plan:
    """Decide on a request that wakes an instance, or does so by its route."""
    if not facts.tried and fleet.is_ready:
        return _OBSERVE if is_no_use(facts, fleet) else _RELAY  # (8), (9)
    failed = facts.problem is not None
    if failed and (facts.may_be_done or not facts.body.complete):  # (10)
        return Unavailable(facts.problem)
    wait = facts.admitted
    if wait is None:
        can_read = facts.route.takes_json and not facts.body.complete
        if can_read and facts.reading < Reading.WHOLE:  # (11)
            return _READ[Reading.WHOLE]
        plan = _without_instance(facts, fleet)
        if not isinstance(plan, Wait):  # (12)
            return plan
        wait = plan
    if facts.waited or (failed and facts.may_wait_s <= 0):  # (13)
        return Unavailable(facts.problem)
    return wait  # (14)


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
            return _refuse(facts.route, 404, "model '' not found")
        case Need.NO_MODEL:
            return _refuse(facts.route, 400, "model is required")
        case Need.CLOUD:
            return _refuse(facts.route, 503, _NO_CLOUD)
        case _ if fleet.fate(fields.model_name) is Fate.ABSENT:
            return _absence(facts.route, fields.model_name)
        case _:
            return Say(Known.DONE, fields)


def _of_model(facts: Facts, fleet: Fleet, fields: BodyFields) -> Plan:
    """Decide by the model that a request can't do without."""
    name = sought_name(facts.route, fields)
    fate = fleet.fate(name) if name else Fate.PASS
    if _is_ignored(facts, fleet, fields):
        return _absence(facts.route, name) if fate is Fate.ABSENT else _UNWOKEN
    match fate:
        case Fate.ABSENT:
            return _absence(facts.route, name)
        case Fate.LATER:
            minutes = max(1, round(fleet.next_look_s() / 60.0))
            return _absence(facts.route, name, _LATER.format(minutes))
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
    """Tell whether a body is worth to be parsed for what it needs."""
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


def _is_readable(facts: Facts) -> bool:
    """Tell whether a body is here as Ollama reads it: it unpacks zstd on ``/v1``."""
    body, route = facts.body, facts.route
    if not body.complete or not route.takes_json:
        return False
    return route.family is Family.NATIVE or body.encoding != "zstd"


def look(facts: Facts) -> BodyFields | None:
    """Return the fields of a body; None if it can't be looked at."""
    if not _is_readable(facts):
        return None
    try:
        return read_fields(facts.body.head)
    except (ValueError, UnreadBodyError):
        return None


def _refusal_of(facts: Facts, fleet: Fleet) -> Refusal | None:
    """Return how a real Ollama refuses a request, whatever models it has."""
    if facts.route.name == "/api/blobs/:digest":
        return digest_refusal(facts.path)
    if not _is_readable(facts):
        return None
    return refusal(facts.route.name, facts.body.head, fleet.version)


def _absence(route: Route, name: str, more: str = "") -> Refuse:
    """Say that a model is not there, in the words that its route has for that."""
    return _refuse(route, 404, absence(route.name, name) + more)


def _refuse(route: Route, status: int, message: str) -> Refuse:
    is_native = route.family is Family.NATIVE
    return Refuse(
        Refusal(status, message, is_translated=not is_native, has_charset=is_native)
    )
