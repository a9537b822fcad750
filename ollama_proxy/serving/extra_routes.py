"""Recognise routes outside of Ollama's table that wake an instance all the same.

Anyone can request any path, so an unknown path wakes nothing. Three kinds are
recognised: routes listed in the settings; routes that an instance of this place has
answered with a status that proves they exist; and routes of earlier Ollamas, if the
last instance was of such a version.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from ollama_proxy.base.parsers import parse_names
from ollama_proxy.core.ollama.routes import ColdAnswer, Kind, Route, classify
from ollama_proxy.serving.lesson_book import LessonBook

LEARNT_ROUTES: Final = 100
"""How many routes are learnt at most; later ones have to be listed."""

ROUTE_BYTES: Final = 200
"""How long a route may be that is learnt: method, space and path."""

_FORMER = {
    "POST /v1/images/generations": ((0, 14, 3), (0, 32, 6)),
    "POST /v1/images/edits": ((0, 15, 0), (0, 32, 6)),
}
"""Routes of ``server/routes.go``: the first version that had each, and the first
without."""

_VERSION = re.compile(r"v?([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})")
_LISTED = re.compile(r"([A-Z]+) +(/[!-)+->@-~]*\*?)")  # no space, no query
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_OURS = frozenset({"/status", "/healthz", "/metrics"})
_UNKNOWN = frozenset({ColdAnswer.NOT_FOUND, ColdAnswer.METHOD})
_NOT_THERE = frozenset({404, 405})
_GATEWAYS = frozenset({502, 503, 504})
_REDIRECTS = range(300, 400)


def parse_routes(value: object) -> tuple[str, ...]:
    """Return routes as ``METHOD /path`` from a comma-separated text, or a list.

    A trailing ``*`` matches every path with that beginning.
    """
    return tuple(_parse_route(text) for text in parse_names(value))


def _parse_route(text: str) -> str:
    match = _LISTED.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no route; write POST /v1/rerank, or POST /v1/x/*"
        )
    method, path = match[1], match[2]
    if path in _OURS or path.startswith("/-/"):
        raise ValueError(f"{text!r} is a route of the proxy's own; leave it out")
    if classify(method, path).kind is not Kind.UNKNOWN:
        raise ValueError(f"{text!r} is a route of Ollama's own; leave it out")
    return f"{method} {path}"


class ExtraRoutes:
    """Tells which unknown routes wake, and learns them from responses.

    ``version`` returns the version of the Ollama that would serve the request.
    """

    def __init__(
        self, listed: Sequence[str], book: LessonBook, version: Callable[[], str]
    ) -> None:
        self._book = book
        self._version = version
        self._exact = frozenset(one for one in listed if not one.endswith("*"))
        self._begun = tuple(one[:-1] for one in listed if one.endswith("*"))

    def resolve(self, route: Route, method: str, path: str) -> Route:
        """Return the route of a request, by the listed and learnt routes as well.

        ``path`` is raw and has no query.
        """
        if route.kind is not Kind.UNKNOWN or route.asleep not in _UNKNOWN:
            return route
        asked = f"{method} {path}"
        is_listed = asked in self._exact or asked.startswith(self._begun)
        is_known = is_listed or asked in self._book.lessons.routes
        if is_known or self._is_former(asked):
            return replace(route, asleep=ColdAnswer.WAKE)
        return route

    def has_learnt(self, method: str, path: str) -> bool:
        """Tell whether an instance here answered a route."""
        return f"{method} {path}" in self._book.lessons.routes

    def _is_former(self, asked: str) -> bool:
        if asked not in _FORMER:
            return False
        begun, ended = _FORMER[asked]
        match = _VERSION.match(self._version())
        return match is not None and begun <= tuple(map(int, match.groups())) < ended

    def heard(self, route: Route, method: str, path: str, status: int) -> None:
        """Learn from an instance's own response that a route exists.

        A read is not learnt, since it does not count as use. Neither is a route with a
        gateway's status or a redirect, which do not come from Ollama.
        """
        if route.kind is not Kind.UNKNOWN or route.asleep not in _UNKNOWN:
            return
        if method in _SAFE or status in _REDIRECTS or status in _NOT_THERE | _GATEWAYS:
            return
        learnt, asked = self._book.lessons.routes, f"{method} {path}"
        fits = asked.isascii() and len(asked) <= ROUTE_BYTES
        if fits and len(learnt) < LEARNT_ROUTES and asked not in learnt:
            learnt.append(asked)
            self._book.save()
