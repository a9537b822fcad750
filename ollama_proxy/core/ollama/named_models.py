"""Find every model that a request names, as its instance will read it. Pure.

`body_model` finds one in the beginning of a body, for the choice of a pool. A key's
right to models needs more: whatever the instance may take has to be found, or the
request can't be judged.
"""

from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from ollama_proxy.core.ollama.body_model import UnseenError, texts_in_json
from ollama_proxy.core.ollama.form_fields import UnusualFormError, form_texts
from ollama_proxy.core.ollama.go_json import are_folded
from ollama_proxy.core.ollama.loose_json import UNREADABLE, has_few_members
from ollama_proxy.core.ollama.routes import TRANSCRIPTIONS, Kind, Route

_NAMES: Final = {
    "/api/copy": ("source", "destination"),
    "/api/create": ("model", "name", "from"),
}
_NAMING: Final = frozenset({Kind.READ, Kind.WRITE})
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MULTIPART: Final = "multipart/"


class UnnamedError(ValueError):
    """Reports that the models of a request can't be found out; says why."""


def models_named(
    route: Route, body: bytes, *, content_type: str, query: str
) -> list[str]:
    """Return the models that a complete request names; none if it names none.

    Raises `UnnamedError`. Of equal members of an object the last one counts, in
    whatever case each server takes the name.
    """
    is_form = content_type.strip().lower().startswith(_MULTIPART)
    if route.name == TRANSCRIPTIONS or (route.kind is Kind.UNKNOWN and is_form):
        return _in_form(body, content_type, query)
    wanted = _names_of(route)
    return list(_in_json(body, wanted)) if wanted and body.strip() else []


def _names_of(route: Route) -> tuple[str, ...]:
    """Return the members that name a model: some of Ollama's routes take ``name``."""
    if route.name in _NAMES:
        return _NAMES[route.name]
    if route.kind is Kind.SYSTEM:
        return ()
    return ("model", "name") if route.kind in _NAMING else ("model",)


def _in_json(body: bytes, wanted: Collection[str]) -> Iterator[str]:
    members = _plain_members(body, wanted)
    if members is not None:
        for name in wanted:
            if (raw := members.get(name)) is not None:
                yield from _texts([_decoded(raw)])
        return
    try:
        yield from _texts(texts_in_json(body, wanted))
    except UnseenError as error:
        raise UnnamedError(f"the model can't be read from the body: {error}") from error


def _plain_members(
    body: bytes, wanted: Collection[str]
) -> dict[str, msgspec.Raw] | None:
    """Return the members of an object that every parser reads alike, else None.

    A ``null`` may follow another value, which Go then keeps.
    """
    try:
        members = _MEMBERS.decode(body) if has_few_members(body) else {}
    except UNREADABLE:
        return None
    if not members or not are_folded(members):
        return None
    if any(bytes(members.get(name, b"")) == b"null" for name in wanted):
        return None
    return members


def _decoded(raw: msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(raw)
    except UNREADABLE as error:
        raise UnnamedError("the model can't be read from the body") from error


def _texts(values: Collection[object]) -> Iterator[str]:
    for value in values:
        if not isinstance(value, str):
            raise UnnamedError("the model of the request is no text")
        if value:
            yield value


def _in_form(body: bytes, content_type: str, query: str) -> list[str]:
    """Return the models of a form; Go's servers prefer those of the query."""
    try:
        texts = form_texts(body, content_type, "model")
    except UnusualFormError as error:
        raise UnnamedError(f"the model can't be read from the form: {error}") from error
    pairs = parse_qsl(query, keep_blank_values=True)
    asked = [value for name, value in pairs if name.lower() == "model"]
    return [text for text in (*asked, *texts) if text]
