"""Decide what it takes to judge a request by its key. Pure.

A key that may use some models only, or so many tokens, can only be asked once the body
is here. What the instance would take is what counts: a body that it could read in
another way is refused in words, never passed on.
"""

from typing import Final
from urllib.parse import unquote

from ollama_proxy.core.access.allowed_models import may_use_model
from ollama_proxy.core.access.decision import KeyRefusal, RefusalReason
from ollama_proxy.core.access.keys import Key
from ollama_proxy.core.access.route_classes import WORK, RouteClass, route_class
from ollama_proxy.core.access.token_estimate import work_of
from ollama_proxy.core.access.work import Work
from ollama_proxy.core.body_look import look
from ollama_proxy.core.ollama.body_model import model_in_json
from ollama_proxy.core.ollama.named_models import UnnamedError, models_named
from ollama_proxy.core.ollama.request_fields import BodyFields
from ollama_proxy.core.ollama.routes import BLOBS, TRANSCRIPTIONS, ColdAnswer, Kind
from ollama_proxy.core.plans import (
    Admit,
    Deny,
    Known,
    Plan,
    Read,
    Reading,
    Say,
    Unavailable,
)
from ollama_proxy.core.pool_choice import FULL, SOUGHT_BYTES
from ollama_proxy.core.request_facts import Facts

_ADMIT: Final = {needed: Admit(Work(needed)) for needed in WORK}
_READ_ALL = Read(Reading.WHOLE)
_TOO_LONG = "the body is longer than 32 MB, so the limits of the key can't be kept"
_PACKED = (
    "the body is compressed ({}), so what it asks for can't be seen, and the key has"
    " limits; send the body as it is"
)
_NO_MODEL = (
    "the key may use some models only, and the request names none that can be seen"
)


def plan_by_key(facts: Facts) -> Plan | None:
    """Return what to do before a request may pass its key; None: nothing.

    a. Its route needs no right to work           -> None, or (g) for a model of a read
    b. Its key has no limit that a body matters to -> Admit
    c. It brings a file of a model                -> Admit
    d. Its body is compressed, or too long        -> Deny: 415, 413
    e. Its body is not here yet                   -> Read
    f. Its models can't be found out              -> Deny: 400
    g. It asks about a model that its key hides   -> Say(HIDDEN)
    h. Else                                       -> Admit; a model that its key may
                                                     not use is refused then
    """
    key = facts.key
    if key is None or facts.is_admitted:
        return None
    needed = route_class(facts.method, facts.path, facts.route)
    if needed is None or needed not in WORK:  # (a)
        return _of_read(facts, key)
    if not key.rights.needs_fields or facts.route.name == BLOBS:  # (b), (c)
        if not key.rights.has_budget:
            return _ADMIT[needed]
        return Admit(Work(needed, _glimpsed(facts)))
    if facts.route.name == TRANSCRIPTIONS and not key.rights.models:
        return Admit(work_of(facts.route, needed, "", b""))
    return _to_read(facts) or _of_work(facts, key, needed)


def _to_read(facts: Facts) -> Plan | None:
    """Return how to get the whole body, or why that can't be; None: it is here."""
    body = facts.body
    if body.encoding:  # (d)
        return _deny(415, _PACKED.format(body.encoding))
    if body.complete:
        return _deny(413, _TOO_LONG) if len(body.head) > SOUGHT_BYTES else None
    if facts.reading < Reading.WHOLE:  # (e)
        return _READ_ALL
    is_cut = 0 < len(body.head) <= SOUGHT_BYTES
    return Unavailable(FULL) if is_cut else _deny(413, _TOO_LONG)


def _of_work(facts: Facts, key: Key, needed: RouteClass) -> Plan:
    """Have a request admitted whose body is here."""
    globs, named = key.rights.models, [""]
    if globs:
        try:
            named = _models_of(facts) or [""]
        except UnnamedError as error:  # (f)
            return _deny(400, str(error))
        if facts.route.kind is Kind.UNKNOWN and named == [""]:
            return _deny(400, _NO_MODEL)
    elif (fields := look(facts)) is not None:
        named = [fields.model_name]
    hidden = (name for name in named if name and not may_use_model(globs, name))
    model = next(hidden, named[0])
    if key.rights.tokens_per_day is None:  # (h)
        return Admit(Work(needed, model))
    return Admit(work_of(facts.route, needed, model, facts.body.head))


def _of_read(facts: Facts, key: Key) -> Plan | None:
    """Judge a request about one model; None if it asks about none, or may see it."""
    globs, asleep = key.rights.models, facts.route.asleep
    if globs and asleep is ColdAnswer.MODEL:
        name = unquote(facts.path.rpartition("/")[2])
        return None if may_use_model(globs, name) else Say(Known.HIDDEN)
    if not globs or asleep is not ColdAnswer.SHOW:
        return None
    return _to_read(facts) or _of_show(facts, globs)


def _of_show(facts: Facts, globs: tuple[str, ...]) -> Plan | None:
    """Judge a request for a description, whose body is here."""
    try:
        named = _models_of(facts)
    except UnnamedError as error:
        return _deny(400, str(error))
    if all(may_use_model(globs, name) for name in named):
        return None
    return Say(Known.HIDDEN, look(facts) or BodyFields(model=named[0]))  # (g)


def _models_of(facts: Facts) -> list[str]:
    return models_named(
        facts.route,
        facts.body.head,
        content_type=facts.content_type,
        query=facts.query,
    )


def _glimpsed(facts: Facts) -> str:
    """Return the model if the beginning of the body says it: a price depends on it."""
    return (facts.route.takes_json and model_in_json(facts.body.head)) or ""


def _deny(status: int, message: str) -> Deny:
    return Deny(KeyRefusal(status, RefusalReason.BODY, message))
