"""Lists of the fake AI Deploy in pages, and their faults.

The API's documents do not say whether pages count from 0 or from 1, so both are played,
and the default fails a caller that guesses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PAGE = 2


class ListRefusedError(Exception):
    """There is no such page."""


@dataclass(slots=True)
class Lists:
    """How pages are numbered and linked.

    - ``first``: the number of the first page; ``given``: that of the page given without
      a number.
    - ``links``: how the next page is given: ``query`` alone, ``path``, ``absolute``, or
      ``none``, by numbers only.
    - ``lie``: a name of `LIES`; ``times``: how often it happens; None: always.
    """

    first: int = 0
    given: int | None = None
    links: str = "query"
    lie: str = ""
    times: int | None = None

    def page(
        self, items: list[Any], query: dict[str, str], base: str
    ) -> dict[str, Any]:
        """Return one page of a list."""
        first = self.first
        last = first + max(1, -(-len(items) // PAGE)) - 1
        given = min(first if self.given is None else self.given, last)
        number = int(query.get("page", given))
        if number < first:
            raise ListRefusedError(f"there is no page {number}")
        begin = (number - first) * PAGE
        answer = {
            "items": items[begin : begin + PAGE],
            "metadata": {
                "currentPage": number,
                "pageCount": last - first + 1,
                "total": len(items),
                "links": self._links(number, last, base),
            },
        }
        return self._told(answer, number)

    def _links(self, number: int, last: int, base: str) -> dict[str, str]:
        if number >= last or self.links == "none":
            return {}
        query = f"?page={number + 1}"
        lead = {"query": "", "path": "/v1/app", "absolute": f"{base.lower()}/v1/app"}
        return {"next": lead[self.links] + query}

    def _told(self, answer: dict[str, Any], number: int) -> dict[str, Any]:
        if not self.lie or self.times == 0:
            return answer
        if self.times is not None:
            self.times -= 1
        LIES[self.lie](answer, number)
        return answer


def _link(place: str) -> Callable[[dict[str, Any], int], None]:
    def lie(answer: dict[str, Any], _number: int) -> None:
        answer["metadata"]["links"] = {"next": place}

    return lie


def _empty(answer: dict[str, Any], _number: int) -> None:
    metadata = {"currentPage": 0, "pageCount": 1, "total": 0, "links": {}}
    answer |= {"items": [], "metadata": metadata}


def _lost(answer: dict[str, Any], number: int) -> None:
    if number % 2 == 0:
        answer["items"] = []


def _without_links(answer: dict[str, Any], _number: int) -> None:
    answer["metadata"]["links"] = {}
    answer["metadata"] |= {"pageCount": 1}


def _endless(answer: dict[str, Any], number: int) -> None:
    answer["items"] = []
    answer["metadata"] = {"links": {"next": f"?page={number + 1}"}}


LIES: dict[str, Callable[[dict[str, Any], int], None]] = {
    "empty": _empty,
    "one page lost": _lost,
    "the other pages are not told": _without_links,
    "a circle": _link("?page=0"),
    "without an end": _endless,
    "another host": _link("https://elsewhere.example/v1/app?page=1"),
    "another port": _link("http://127.0.0.1:1/v1/app?page=1"),
    "another scheme": _link("ftp://127.0.0.1/v1/app?page=1"),
    "a host without a scheme": _link("//elsewhere.example/v1/app?page=1"),
    "another path": _link("/elsewhere?page=1"),
}
