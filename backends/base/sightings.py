"""Ask by id for what a cloud has shown once, when a list lacks it.

Lists trail, lose pages and come empty once. So their silence says nothing of what is
known to have been there: it is gone once the cloud says so of that very id. What is
known is kept in the notes, for the process after this one.

Of a creation whose answer was lost no id is known. That nothing came of it is believed
after two looks that lie further apart than lists trail.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from ollama_proxy.base.errors import NotFoundError
from ollama_proxy.core.lifecycle.record import LaunchId

APART_S = 65.0
"""Between two looks that together prove that nothing is there; lists trail a minute."""


class HasId(Protocol):
    """Has an id: a thing of a cloud."""

    @property
    def id(self) -> str:
        """Return what the cloud calls it, and nothing else, ever."""


_Thing = TypeVar("_Thing", bound=HasId)


class Sightings(Generic[_Thing]):
    """Remembers the things of a deployment that a cloud has shown, by id and place.

    ``ask`` returns one by its place and id, and raises `NotFoundError`; ``is_over``
    tells whether one is not ours or not there any more; ``save`` keeps what is known.
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
        self._saved: dict[str, str] | None = None  # launches know some, while they last
        self._ask = ask
        self._is_over = is_over
        self._save = save

    def note(self, place: str, *things: _Thing) -> None:
        """Remember what was shown; forget what is over."""
        known = dict(self._known)
        for thing in things:
            if self._is_over(thing):
                known.pop(thing.id, None)
            else:
                known[thing.id] = place
        self._keep(known)

    async def complete(self, place: str, listed: Sequence[_Thing]) -> list[_Thing]:
        """Return what a place has of ours: what it lists, and what it only knows.

        Raises what asking raises: one that can't be asked for may be there.
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
        """Note a look that showed nothing; tell whether there were two, apart.

        One soon after the call, ``sent_at``, would not show yet what was made.
        """
        if now - sent_at < APART_S:
            return False
        return now - self._since.setdefault(launch_id, now) >= APART_S

    def end(self, launch_id: LaunchId) -> None:
        """Forget a launch: something was seen of it, or it is over."""
        self._since.pop(launch_id, None)
