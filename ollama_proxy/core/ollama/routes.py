"""Which request is what, and what becomes of it.

The table lists Ollama's routes as its server declares them (v0.33,
``server/routes.go``). It is pure: it looks at method, raw path and, for two
routes, at a few fields of the body.

Only *inference* and *model write* requests wake an instance or reset the idle
clock. What is only read is answered from the catalogue while no instance is up.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from ollama_proxy.core.ollama.go_duration import parse_duration_ns
from ollama_proxy.core.ollama.go_json import (
    MOST_BYTES,
    EmptyBodyError,
    GoSyntaxError,
    UnreadBodyError,
    are_folded,
    read_members,
)
from ollama_proxy.core.ollama.redirects import clean_path

_ADMIN = frozenset({"/status", "/healthz", "/metrics"})
_ORDERS = "/-/"
_NOT_JSON = frozenset({"/v1/audio/transcriptions", "/api/blobs/:digest"})


class Family(StrEnum):
    """Whose words an error is told in."""

    NATIVE = "native"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Kind(StrEnum):
    """What a request needs, as metrics label it; ``ADMIN``: the proxy itself."""

    INFERENCE = "inference"
    WRITE = "model_write"
    READ = "model_read"
    SYSTEM = "system"
    ADMIN = "admin"
    UNKNOWN = "unknown"


class ColdAnswer(StrEnum):
    """How a request is answered while no instance is ready."""

    WAKE = "wake"
    ROOT = "root"
    VERSION = "version"
    STATUS = "status"
    ACCOUNT = "account"
    CLOUD = "cloud"
    RECOMMENDATIONS = "recommendations"
    TAGS = "tags"
    SHOW = "show"
    PS = "ps"
    MODELS = "models"
    MODEL = "model"
    BLOB = "blob"
    NOT_FOUND = "not_found"
    REDIRECT = "redirect"
    METHOD = "method"


class Streams(StrEnum):
    """Whether an answer is a stream: if asked, unless refused, or never."""

    ON = "on"
    OFF = "off"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Route:
    """One line of Ollama's routing table."""

    kind: Kind
    asleep: ColdAnswer
    family: Family = Family.NATIVE
    streams: Streams = Streams.NEVER
    name: str = "other"

    @property
    def counts_as_use(self) -> bool:
        """Whether the request wakes an instance and resets the idle clock."""
        return self.asleep is ColdAnswer.WAKE

    @property
    def takes_json(self) -> bool:
        """Whether the body is a JSON object, as far as is known."""
        is_ollamas = self.kind not in {Kind.UNKNOWN, Kind.ADMIN}
        return is_ollamas and self.name not in _NOT_JSON


def _native(kind: Kind, asleep: ColdAnswer, streams: Streams = Streams.NEVER) -> Route:
    return Route(kind, asleep, Family.NATIVE, streams)


_READ, _SYSTEM = Kind.READ, Kind.SYSTEM
_WRITE = _native(Kind.WRITE, ColdAnswer.WAKE)
_WRITE_STREAMED = _native(Kind.WRITE, ColdAnswer.WAKE, Streams.ON)
_INFER = _native(Kind.INFERENCE, ColdAnswer.WAKE)
_INFER_STREAMED = _native(Kind.INFERENCE, ColdAnswer.WAKE, Streams.ON)
_OPENAI = Route(Kind.INFERENCE, ColdAnswer.WAKE, Family.OPENAI)
_OPENAI_STREAMED = Route(Kind.INFERENCE, ColdAnswer.WAKE, Family.OPENAI, Streams.OFF)
_ANTHROPIC = Route(Kind.INFERENCE, ColdAnswer.WAKE, Family.ANTHROPIC, Streams.OFF)

_EXACT: dict[str, dict[str, Route]] = {
    "/": {m: _native(_SYSTEM, ColdAnswer.ROOT) for m in ("GET", "HEAD")},
    "/api/version": {m: _native(_SYSTEM, ColdAnswer.VERSION) for m in ("GET", "HEAD")},
    "/api/status": {"GET": _native(_SYSTEM, ColdAnswer.STATUS)},
    "/api/me": {"POST": _native(_SYSTEM, ColdAnswer.ACCOUNT)},
    "/api/signout": {"POST": _native(_SYSTEM, ColdAnswer.ACCOUNT)},
    "/api/experimental/model-recommendations": {
        "GET": _native(_SYSTEM, ColdAnswer.RECOMMENDATIONS)
    },
    "/api/experimental/web_search": {"POST": _native(_SYSTEM, ColdAnswer.CLOUD)},
    "/api/experimental/web_fetch": {"POST": _native(_SYSTEM, ColdAnswer.CLOUD)},
    "/api/tags": {m: _native(_READ, ColdAnswer.TAGS) for m in ("GET", "HEAD")},
    "/api/show": {"POST": _native(_READ, ColdAnswer.SHOW)},
    "/api/ps": {"GET": _native(_READ, ColdAnswer.PS)},
    "/v1/models": {"GET": Route(_READ, ColdAnswer.MODELS, Family.OPENAI)},
    "/api/pull": {"POST": _WRITE_STREAMED},
    "/api/push": {"POST": _WRITE_STREAMED},
    "/api/create": {"POST": _WRITE_STREAMED},
    "/api/copy": {"POST": _WRITE},
    "/api/delete": {"DELETE": _WRITE},
    "/api/generate": {"POST": _INFER_STREAMED},
    "/api/chat": {"POST": _INFER_STREAMED},
    "/api/embed": {"POST": _INFER},
    "/api/embeddings": {"POST": _INFER},
    "/v1/chat/completions": {"POST": _OPENAI_STREAMED},
    "/v1/completions": {"POST": _OPENAI_STREAMED},
    "/v1/embeddings": {"POST": _OPENAI},
    "/v1/responses": {"POST": _OPENAI_STREAMED},
    "/v1/audio/transcriptions": {"POST": _OPENAI},
    "/v1/messages": {"POST": _ANTHROPIC},
}

_PATTERNS: tuple[tuple[str, re.Pattern[str], dict[str, Route]], ...] = (
    (
        "/api/blobs/:digest",
        re.compile(r"/api/blobs/[^/]+\Z"),
        {"HEAD": _native(_READ, ColdAnswer.BLOB), "POST": _WRITE},
    ),
    (
        "/v1/models/:model",
        re.compile(r"/v1/models/[^/]+\Z"),
        {"GET": Route(_READ, ColdAnswer.MODEL, Family.OPENAI)},
    ),
    (
        "/api/user/keys/:key",
        re.compile(r"/api/user/keys/[^/]+\Z"),
        {"DELETE": _native(_SYSTEM, ColdAnswer.ACCOUNT)},
    ),
)


def known_paths() -> list[str]:
    """Return the paths of Ollama's that hold no name of a model or file."""
    return list(_EXACT)


def classify(method: str, path: str) -> Route:
    """Return the route of a request; ``path`` is raw and has no query.

    A path or method that Ollama does not know passes through while an instance
    is up, and wakes none; see `ollama_proxy.serving.extra_routes` for those that do.
    """
    if (methods := _EXACT.get(path)) is not None:
        return _named(methods, method, path)
    if path in _ADMIN or path.startswith(_ORDERS):
        name = path if path in _ADMIN else _ORDERS
        return Route(Kind.ADMIN, ColdAnswer.NOT_FOUND, name=name)
    family = family_of(path)
    if clean_path(path) != path:
        return Route(Kind.UNKNOWN, ColdAnswer.REDIRECT, family)
    name, methods = _known(path)
    if methods:
        return _named(methods, method, name)
    if path.endswith("/") and method in _known(path[:-1])[1]:
        return Route(Kind.UNKNOWN, ColdAnswer.REDIRECT, family)
    return Route(Kind.UNKNOWN, ColdAnswer.NOT_FOUND, family)


def _known(path: str) -> tuple[str, dict[str, Route]]:
    """Return the route that a path matches, by name and method; none by default.

    Ollama's router looks at the path with its percent signs decoded.
    """
    decoded = unquote(path) if "%" in path else path
    if decoded in _EXACT:
        return decoded, _EXACT[decoded]
    for name, pattern, methods in _PATTERNS:
        if pattern.match(decoded):
            return name, methods
    return "", {}


def _named(methods: dict[str, Route], method: str, name: str) -> Route:
    route = methods.get(method)
    if route is None:
        return Route(Kind.UNKNOWN, ColdAnswer.METHOD, family_of(name), name=name)
    return Route(route.kind, route.asleep, route.family, route.streams, name)


def family_of(path: str) -> Family:
    """Return in whose words an error on ``path`` is told."""
    if path.startswith("/v1/messages"):
        return Family.ANTHROPIC
    return Family.OPENAI if path.startswith("/v1/") else Family.NATIVE


def allow_header(path: str) -> str:
    """Return the methods that Ollama takes on a path, for ``Allow``; "" if none."""
    return ", ".join(sorted(_known(path)[1], key=len, reverse=True))


class BodyFields(msgspec.Struct):
    """The few fields of a JSON body that routing needs; the rest is skipped."""

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
        """The model: ``model``, else the older ``name``."""
        return self.model or _text(self.name)

    @property
    def source_name(self) -> str:
        """The model that is to be copied."""
        return _text(self.source)


def _text(raw: msgspec.Raw) -> str:
    """Return a raw text; "" if it is none."""
    try:
        value = msgspec.json.decode(raw) if bytes(raw) else ""
    except UNREADABLE:
        return ""
    return value if isinstance(value, str) else ""


UNREADABLE = (
    msgspec.MsgspecError,
    UnicodeDecodeError,
    RecursionError,
    OverflowError,
)
"""What looking at a client's JSON may raise."""

_Shape = TypeVar("_Shape")


def read_loosely(body: bytes, shape: type[_Shape]) -> _Shape | None:
    """Return a JSON object as Go reads it: keys in any case, nulls as if not there.

    None if it is not of that shape.
    """
    try:
        members = _MEMBERS.decode(body) if _has_few_members(body) else {}
        if members and _is_as_go_reads_it(members):
            given = {k: v for k, v in members.items() if bytes(v) != b"null"}
            return msgspec.json.decode(msgspec.json.encode(given), type=shape)
    except UNREADABLE:
        pass
    try:
        return msgspec.json.decode(msgspec.json.encode(read_members(body)), type=shape)
    except (*UNREADABLE, GoSyntaxError, UnreadBodyError):
        return None


_FIELDS = msgspec.json.Decoder(BodyFields)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NO_PROMPT = {b"", b"null", b'""'}
_NO_MESSAGES = {b"", b"null", b"[]"}
_NOTHING_BYTES = 1024
_MOST_MEMBERS = 100_000
_LONGEST_NAME = 4096  # Ollama's own limit is 592


def _has_few_members(body: bytes) -> bool:
    """Tell whether a body's members are made in little time: 30 ms at most."""
    return len(body) <= MOST_BYTES or body.count(b":") <= _MOST_MEMBERS


def read_fields(body: bytes) -> BodyFields:
    """Look at a JSON body without building the rest of it.

    Raises `ValueError` with a sentence if it is not a JSON object of that shape, and
    `UnreadBodyError` if it is too much to look at.
    """
    try:
        if _has_few_members(body) and _is_as_go_reads_it(_MEMBERS.decode(body)):
            return _with_short_names(_FIELDS.decode(body))
    except UNREADABLE:
        pass
    try:
        members = read_members(body, BodyFields.__struct_fields__)
        if bytes(members.get("stream", b"")) not in {b"true", b"false"}:
            members.pop("stream", None)  # not every route has such a field
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


def _is_as_go_reads_it(members: dict[str, msgspec.Raw]) -> bool:
    """Tell whether Go takes an object's keys as they are.

    A ``model`` that is null may come after one that is not, and is nothing then.
    """
    if bytes(members.get("model", b"")) == b"null":
        return False
    return are_folded(members)


class Need(StrEnum):
    """What an inference request needs, as its body tells."""

    INSTANCE = "instance"
    LOAD = "load"
    UNLOAD = "unload"
    CLOUD = "cloud"
    NO_MODEL = "no_model"


def need_of(route_name: str, fields: BodyFields) -> Need:
    """Return what a request on an inference route needs.

    Without prompt or messages it only loads its model, or unloads it if that is to
    be kept for no time: ``ollama stop``. A cloud model runs at ollama.com
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


def is_cloud_model(name: str) -> bool:
    """Tell whether a name means a model of ollama.com: ``:cloud`` or ``…-cloud``."""
    _, colon, last = name.rpartition(":")
    tag = last.strip().lower()
    named = tag == "cloud" or ("/" not in tag and tag.endswith("-cloud"))
    return bool(colon) and named


def _compact(raw: bytes) -> bytes:
    return raw.translate(None, b" \t\r\n")


_LONGEST_S = 1e10
_SHORTEST_S = 1e-9  # Go counts whole nanoseconds: what is less is none
_NS_PER_S = 1e9


def go_duration_s(raw: bytes) -> float | None:  # noqa: PLR0911
    """Return a raw ``keep_alive`` in seconds: a number, or Go's ``"1h30m"``.

    None if it is absent, null or no duration.
    """
    try:
        value = msgspec.json.decode(raw) if raw else None
    except UNREADABLE:
        return None
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        if 0 < value < _SHORTEST_S:
            return 0.0
        return float(value) if abs(value) < _LONGEST_S else _LONGEST_S
    if not isinstance(value, str):
        return None
    try:
        return parse_duration_ns(value) / _NS_PER_S
    except ValueError:
        return None


def wants_stream(route: Route, fields: BodyFields | None) -> bool:
    """Tell whether the answer will be a stream, as far as the body was read."""
    if fields is None or route.streams is Streams.NEVER:
        return False
    if fields.stream is None:
        return route.streams is Streams.ON
    return fields.stream


_DEFAULT_PARTS = ("https://", "http://", "registry.ollama.ai/", "library/")


def full_model_name(name: str) -> str:
    """Return ``name`` as the store resolves it: lower case, short, with a tag."""
    return shown_model_name(name).lower()


def shown_model_name(name: str) -> str:
    """Return ``name`` as Ollama shows it: short, with a tag, in the client's letters.

    ``:local`` says nothing; a cloud model's suffix becomes part of its tag
    (``NormalizePullName`` in ``internal/modelref/modelref.go``).
    """
    short = name.strip()
    for part in _DEFAULT_PARTS:
        if short[: len(part)].lower() == part:
            short = short[len(part) :]
    short = _without_suffix(short, ":local")
    base = _without_suffix(short, ":cloud")
    if base != short and ":" in base.rpartition("/")[2]:
        short = f"{base}-cloud"
    return short if ":" in short.rpartition("/")[2] else f"{short}:latest"


def _without_suffix(name: str, suffix: str) -> str:
    return name[: -len(suffix)] if name.lower().endswith(suffix) else name
