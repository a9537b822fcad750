"""Read a list that comes in pages, whatever the number of its first page.

The first call names no page. Each answer gives the next page: by a link, else by its
own number and the count of pages. A link is followed on the same origin only, because
the token is sent along. A list with fewer items than it announces, or with a cycle of
links, is refused: a missing item may exist.

Shape of an answer: ``{items, metadata: {currentPage, pageCount, total, links:
{next}}}`` (ovh/ovhai-python-sdk); a bare array is the whole list. It is not documented
whether pages count from 0 or from 1.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

from ollama_proxy.base.errors import SpecError, TransientError

SIZE = 100
MAX_PAGES = 200

Asked = Callable[[str], Awaitable[Any]]
"""Returns the answer to a GET of a path, its query included, below the base."""


class ListError(TransientError):
    """Reports a list that can't be read to its end: a missing entry proves nothing."""


async def read_list(ask: Asked, *, base: str, path: str, what: str) -> list[Any]:
    """Return every item of the list at ``path`` below ``base``.

    Raises `ListError` for one that links elsewhere, has a cycle, more than `MAX_PAGES`
    pages or fewer items than it announces. ``what`` names it in errors.
    """
    pages = _Pages(base, path, what)
    place: str | None = f"{path}?size={SIZE}"
    while place is not None:
        place = pages.take(place, await ask(place))
    for number in range(MAX_PAGES):  # the first page was not all: fetch by numbers
        if not pages.lacks_some:
            break
        known = len(pages.items)
        with contextlib.suppress(SpecError):  # no page of that number
            pages.keep(await ask(f"{path}?size={SIZE}&page={number}"))
        if number > pages.read and len(pages.items) == known:
            break
    if pages.lacks_some:
        raise ListError(
            f"{what} shows {len(pages.items)} of {pages.total}: a page is missing, so"
            " what it does not show may be there"
        )
    return list(pages.items.values())


class _Pages:
    """Holds the pages read so far, and the next one."""

    def __init__(self, base: str, path: str, what: str) -> None:
        self.items: dict[object, Any] = {}
        self.total = 0
        self._base = base
        self._path = path
        self._what = what
        self._been: set[str] = set()
        self._first: int | None = None

    @property
    def lacks_some(self) -> bool:
        """Tell whether the list announced more than it showed."""
        return len(self.items) < self.total

    @property
    def read(self) -> int:
        """Return how many pages were read one after the other."""
        return len(self._been)

    def take(self, place: str, answer: Any) -> str | None:
        """Keep the items of a page; return where the next one is, None if nowhere."""
        self._been.add(place)
        known = len(self.items)
        items = self.keep(answer)
        if items and len(self.items) == known:
            raise ListError(f"{self._what} repeats a page, so another one is missing")
        metadata = answer.get("metadata") if isinstance(answer, dict) else None
        if not isinstance(metadata, dict):
            return None
        if len(self._been) == 1:
            self._first = _whole(metadata.get("currentPage"))
        self.total = max(self.total, _whole(metadata.get("total")) or 0)
        following = self._following(metadata)
        if following in self._been:
            raise ListError(f"{self._what} goes in a circle: {following!r} comes again")
        if following is not None and len(self._been) >= MAX_PAGES:
            raise ListError(f"{self._what} has more than {MAX_PAGES} pages")
        return following

    def keep(self, answer: Any) -> list[Any]:
        """Keep the items of a page, each once; return them all."""
        items = answer.get("items") if isinstance(answer, dict) else answer
        if not isinstance(items, list):
            raise ListError(f"{self._what} has no items")
        for item in items:
            named = item.get("id") if isinstance(item, dict) else None
            self.items[named if isinstance(named, str) else len(self.items)] = item
        return items

    def _following(self, metadata: dict[str, Any]) -> str | None:
        links = metadata.get("links")
        link = links.get("next") if isinstance(links, dict) else None
        if isinstance(link, dict):
            link = link.get("href")
        if isinstance(link, str) and link:
            return self._followed(link)
        return self._counted(metadata)

    def _followed(self, link: str) -> str:
        """Return a link's place below the base; raises `ListError` for elsewhere."""
        here = self._base + self._path
        there = urljoin(here, link)
        if _origin(there) != _origin(here):
            raise ListError(
                f"{self._what} goes on at {_shown(there)}, which is not"
                f" {_shown(self._base)}: the token is not sent there; set"
                " OVH_AI_API_URL to where the API really is"
            )
        target, below = urlsplit(there), urlsplit(self._base).path
        query = f"?{target.query}" if target.query else ""
        if target.path in {self._path, below + self._path}:
            return self._path + query
        if not target.path.startswith(f"{below}/"):
            raise ListError(
                f"{self._what} goes on at {_shown(there)}{target.path}, outside of"
                f" OVH_AI_API_URL {self._base}"
            )
        return target.path.removeprefix(below) + query

    def _counted(self, metadata: dict[str, Any]) -> str | None:
        """Return the next page by number, of a list that has no links."""
        count, current = _whole(metadata.get("pageCount")), len(self._been) - 1
        if self._first is not None:
            current += self._first
        if count is None or len(self._been) >= count:
            return None
        if self._first is None:
            raise ListError(f"{self._what} has {count} pages and does not say which")
        return f"{self._path}?size={SIZE}&page={current + 1}"


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, port if port is not None else usual


def _shown(url: str) -> str:
    """Return the origin of a URL in words; what else is in it may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
