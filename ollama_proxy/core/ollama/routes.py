"""Classify requests: Ollama's routes, and the proxy's own.

The table lists Ollama's routes as its server declares them (v0.33,
``server/routes.go``). Pure: it uses method and raw path; `request_fields` reads bodies.

Only *inference* and *model write* requests wake an instance or reset the idle timer.
Reads are answered from the catalogue while no instance is ready.
"""

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

from ollama_proxy.core.ollama.redirects import clean_path

_ADMIN = frozenset({"/status", "/healthz", "/metrics"})
_ORDERS = "/-/"

BLOBS: Final = "/api/blobs/:digest"
"""Names the route that takes a file of a model."""

TRANSCRIPTIONS: Final = "/v1/audio/transcriptions"
"""Names the route whose body is a form with a sound."""

_NOT_JSON = frozenset({TRANSCRIPTIONS, BLOBS})


class Family(StrEnum):
    """Names the protocol in which an error is written."""

    NATIVE = "native"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Kind(StrEnum):
    """Names what a request needs, as metrics label it; ``ADMIN``: the proxy itself."""

    INFERENCE = "inference"
    WRITE = "model_write"
    READ = "model_read"
    SYSTEM = "system"
    ADMIN = "admin"
    UNKNOWN = "unknown"


class ColdAnswer(StrEnum):
    """Names how a request is answered while no instance is ready."""

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
    """Says whether an answer is a stream: if asked, unless refused, or never."""

    ON = "on"
    OFF = "off"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Route:
    """Holds one line of Ollama's routing table.

    ``is_job``: of a job for the hub. ``counts_as_use``: it wakes an instance
    and resets the idle timer. ``takes_json``: its body is a JSON object, as far as is
    known.
    """

    kind: Kind
    asleep: ColdAnswer
    family: Family = Family.NATIVE
    streams: Streams = Streams.NEVER
    name: str = "other"
    is_job: bool = False
    counts_as_use: bool = field(init=False)
    takes_json: bool = field(init=False)

    def __post_init__(self) -> None:
        """Work out what each request is asked: this is done once for most routes."""
        is_ollamas = self.kind not in {Kind.UNKNOWN, Kind.ADMIN}
        takes_json = is_ollamas and self.name not in _NOT_JSON
        object.__setattr__(self, "counts_as_use", self.asleep is ColdAnswer.WAKE)
        object.__setattr__(self, "takes_json", takes_json)


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
    TRANSCRIPTIONS: {"POST": _OPENAI},
    "/v1/messages": {"POST": _ANTHROPIC},
}

EMBEDDINGS: Final = frozenset({"/api/embed", "/api/embeddings", "/v1/embeddings"})
"""Names of the routes whose answers are vectors."""

_PATTERNS: tuple[tuple[str, re.Pattern[str], dict[str, Route]], ...] = (
    (
        BLOBS,
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


_NAMED = {
    (name, method): replace(route, name=name)
    for name, methods in (
        *_EXACT.items(),
        *((name, methods) for name, _, methods in _PATTERNS),
    )
    for method, route in methods.items()
}
"""Every route by its name and method."""


def known_paths() -> list[str]:
    """Return the paths of Ollama's that hold no name of a model or file."""
    return list(_EXACT)


def is_own_path(path: str) -> bool:
    """Tell whether a raw path is that of an endpoint of the proxy itself."""
    return path in _ADMIN or path.startswith(_ORDERS)


def classify(method: str, path: str) -> Route:
    """Return the route of a request; ``path`` is raw and has no query.

    A path or method that Ollama does not know is relayed while an instance is ready,
    and wakes none. `ollama_proxy.serving.extra_routes` has exceptions.
    """
    route = _NAMED.get((path, method))
    if route is not None or path in _EXACT:
        return route or _named(method, path)
    if is_own_path(path):
        name = path if path in _ADMIN else _ORDERS
        return Route(Kind.ADMIN, ColdAnswer.NOT_FOUND, name=name)
    family = family_of(path)
    if clean_path(path) != path:
        return Route(Kind.UNKNOWN, ColdAnswer.REDIRECT, family)
    name, methods = _known(path)
    if methods:
        return _named(method, name)
    if path.endswith("/") and method in _known(path[:-1])[1]:
        return Route(Kind.UNKNOWN, ColdAnswer.REDIRECT, family)
    return Route(Kind.UNKNOWN, ColdAnswer.NOT_FOUND, family)


def _known(path: str) -> tuple[str, dict[str, Route]]:
    """Return the route that a path matches, by name and method; none by default.

    Ollama's router compares the percent-decoded path.
    """
    decoded = unquote(path) if "%" in path else path
    if decoded in _EXACT:
        return decoded, _EXACT[decoded]
    for name, pattern, methods in _PATTERNS:
        if pattern.match(decoded):
            return name, methods
    return "", {}


def _named(method: str, name: str) -> Route:
    route = _NAMED.get((name, method))
    if route is None:
        return Route(Kind.UNKNOWN, ColdAnswer.METHOD, family_of(name), name=name)
    return route


def family_of(path: str) -> Family:
    """Return the protocol in which an error on ``path`` is written."""
    if path.startswith("/v1/messages"):
        return Family.ANTHROPIC
    return Family.OPENAI if path.startswith("/v1/") else Family.NATIVE


def allow_header(path: str) -> str:
    """Return the methods that Ollama takes on a path, for ``Allow``; "" if none."""
    return ", ".join(sorted(_known(path)[1], key=len, reverse=True))
