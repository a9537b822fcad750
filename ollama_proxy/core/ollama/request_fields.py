"""Read the few fields of a body on which routing depends."""

from enum import StrEnum

import msgspec

from ollama_proxy.core.ollama.durations import go_duration_s
from ollama_proxy.core.ollama.go_json import UnreadBodyError, read_members
from ollama_proxy.core.ollama.go_syntax import EmptyBodyError
from ollama_proxy.core.ollama.loose_json import UNREADABLE, takes_keys_as_they_are
from ollama_proxy.core.ollama.model_names import is_cloud_model
from ollama_proxy.core.ollama.routes import Route, Streams


class BodyFields(msgspec.Struct):
    """Holds the few fields of a JSON body that routing needs; the rest is skipped."""

    model: str | None = None
    name: msgspec.Raw = msgspec.Raw()
    stream: bool | None = None
    prompt: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    keep_alive: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    options: msgspec.Raw = msgspec.Raw()
    source: msgspec.Raw = msgspec.Raw()
    shift: msgspec.Raw = msgspec.Raw()
    max_tokens: msgspec.Raw = msgspec.Raw()
    max_completion_tokens: msgspec.Raw = msgspec.Raw()
    max_output_tokens: msgspec.Raw = msgspec.Raw()

    @property
    def model_name(self) -> str:
        """Return the model: ``model``, else the older ``name``."""
        return self.model or _text(self.name)

    @property
    def source_name(self) -> str:
        """Return the model to copy."""
        return _text(self.source)


def _text(raw: msgspec.Raw) -> str:
    """Return a raw text; "" if it is none."""
    try:
        value = msgspec.json.decode(raw) if bytes(raw) else ""
    except UNREADABLE:
        return ""
    return value if isinstance(value, str) else ""


_FIELDS = msgspec.json.Decoder(BodyFields)
_NO_PROMPT = {b"", b"null", b'""'}
_NO_MESSAGES = {b"", b"null", b"[]"}
_NOTHING_BYTES = 1024
_LONGEST_NAME = 4096  # Ollama's own limit is 592


def read_fields(body: bytes) -> BodyFields:
    """Read the fields of a JSON body that matter here, without building the rest.

    Raises `ValueError` with a sentence if it is not a JSON object of that shape, and
    `UnreadBodyError` if it is too large.
    """
    try:
        if takes_keys_as_they_are(body):
            return _with_short_names(_FIELDS.decode(body))
    except UNREADABLE:
        pass
    try:
        members = read_members(body, BodyFields.__struct_fields__)
        if bytes(members.get("stream", b"")) not in {b"true", b"false"}:
            members.pop("stream", None)  # some routes ignore the field
        return _with_short_names(_FIELDS.decode(msgspec.json.encode(members)))
    except EmptyBodyError as error:
        raise ValueError("missing request body") from error
    except RecursionError as error:
        raise UnreadBodyError from error
    except msgspec.MsgspecError as error:
        raise ValueError(f"invalid request body: {error}") from error


def _with_short_names(fields: BodyFields) -> BodyFields:
    """Return fields; raises `UnreadBodyError` if a name is no name but a megabyte."""
    names = (fields.model or "", bytes(fields.name), bytes(fields.source))
    if any(len(name) > _LONGEST_NAME for name in names):
        raise UnreadBodyError
    return fields


class Need(StrEnum):
    """Names what an inference request needs, by its body."""

    INSTANCE = "instance"
    LOAD = "load"
    UNLOAD = "unload"
    CLOUD = "cloud"
    NO_MODEL = "no_model"


def need_of(route_name: str, fields: BodyFields) -> Need:
    """Return what a request on an inference route needs.

    Without prompt or messages it only loads its model, or unloads it if ``keep_alive``
    is zero (``ollama stop``). A cloud model runs at ollama.com
    (``internal/modelref/modelref.go``).
    """
    if not fields.model_name:
        return Need.NO_MODEL
    if _asks_nothing(route_name, fields):
        unloads = go_duration_s(bytes(fields.keep_alive)) == 0
        return Need.UNLOAD if unloads else Need.LOAD
    return Need.CLOUD if is_cloud_model(fields.model_name) else Need.INSTANCE


def _asks_nothing(route_name: str, fields: BodyFields) -> bool:
    if route_name == "/api/generate":
        return bytes(fields.prompt)[:_NOTHING_BYTES] in _NO_PROMPT
    if route_name == "/api/chat":
        return _compact(bytes(fields.messages)[:_NOTHING_BYTES]) in _NO_MESSAGES
    return False


def _compact(raw: bytes) -> bytes:
    return raw.translate(None, b" \t\r\n")


def wants_stream(route: Route, fields: BodyFields | None) -> bool:
    """Tell whether the answer will be a stream, as far as the body was read."""
    if fields is None or route.streams is Streams.NEVER:
        return False
    if fields.stream is None:
        return route.streams is Streams.ON
    return fields.stream
