"""Look up by id what a cloud has shown once, when a list lacks it.

Lists lag, lose pages and are sometimes empty. So a missing entry proves nothing about a
thing that was known to exist: it is gone once the cloud states so for its id. Known
things are kept in the notes, for the next process.

After a create call whose answer was lost, no id is known. Two looks without a result,
further apart than lists lag, prove that it created nothing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from ollama_proxy.base.errors import NotFoundError
from ollama_proxy.core.lifecycle.record import LaunchId

APART_S = 65.0
"""Time between two looks that together prove absence; lists lag up to a minute."""


class HasId(Protocol):
    """Has an id: a thing of a cloud."""

    @property
    def id(self) -> str:
        """Return what the cloud calls it, and nothing else, ever."""


_Thing = TypeVar("_Thing", bound=HasId)


class Sightings(Generic[_Thing]):
    """Remembers the things of a deployment that a cloud has shown, by id and place.

    ``ask`` returns one by its place and id, and raises `NotFoundError`. ``is_over``
    tells whether one is not ours or no longer exists. ``save`` stores the known things.
    """

    def __init__(
        self,
        known: Mapping[str, str],
        *,
        ask: Callable[[str, str], Awaitable[_Thing]],
        is_over: Callable[[_Thing], bool],
        save: Callable[[dict[str, str]], None],
    ) -> None:
        self._known = dict(known)
        self._saved: dict[str, str] | None = None  # notes of launches have some too
        self._ask = ask
        self._is_over = is_over
        self._save = save

    def note(self, place: str, *things: _Thing) -> None:
        """Remember things that were shown; forget deleted ones."""
        known = dict(self._known)
        for thing in things:
            if self._is_over(thing):
                known.pop(thing.id, None)
            else:
                known[thing.id] = place
        self._keep(known)

    async def complete(self, place: str, listed: Sequence[_Thing]) -> list[_Thing]:
        """Return ours in a place: the listed ones, and known ones that the list lacks.

        Raises any error of a look-up: a thing that can't be looked up may exist.
        """
        found = {one.id: one for one in listed}
        gone: set[str] = set()
        missing = [
            one
            for one, where in self._known.items()
            if where == place and one not in found
        ]
        for thing_id in missing:
            try:
                found[thing_id] = await self._ask(place, thing_id)
            except NotFoundError:
                gone.add(thing_id)
        self._keep({k: v for k, v in self._known.items() if k not in gone})
        self.note(place, *found.values())
        return [one for one in found.values() if not self._is_over(one)]

    def _keep(self, known: dict[str, str]) -> None:
        self._known = known
        if known != self._saved:
            self._saved = known
            self._save(dict(known))


class Absences:
    """Remembers since when lists have shown nothing of a launch."""

    def __init__(self) -> None:
        self._since: dict[LaunchId, float] = {}

    def is_certain(self, launch_id: LaunchId, now: float, *, sent_at: float) -> bool:
        """Record a look without a result; tell whether there were two, `APART_S` apart.

        A look soon after the call, ``sent_at``, would not yet show what it created.
        """
        if now - sent_at < APART_S:
            return False
        return now - self._since.setdefault(launch_id, now) >= APART_S

    def end(self, launch_id: LaunchId) -> None:
        """Forget a launch: something was seen of it, or it is over."""
        self._since.pop(launch_id, None)
