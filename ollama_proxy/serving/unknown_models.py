"""Decide whether a request for an unknown model may start an instance.

If the model does not exist, the instance would start only to answer 404. A name is
known if it is configured, restored, being pulled, or in the last instance's list. If
every launch begins with an empty disk, no other model exists. If models are kept,
another client may have added the model: an unknown name wakes an instance once, and the
instance's answer is remembered until its list changes.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Protocol

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.body_look import look
from ollama_proxy.core.http.headers import media_type
from ollama_proxy.core.ollama.answer_end import Head
from ollama_proxy.core.ollama.lessons import Lessons
from ollama_proxy.core.ollama.model_fate import (
    WAKES_PER_HOUR,
    Fate,
    NameFacts,
    WakeRule,
    fate_of,
    sought_name,
)
from ollama_proxy.core.ollama.model_names import full_model_name, is_cloud_model
from ollama_proxy.core.request_facts import Facts
from ollama_proxy.serving.lesson_book import LessonBook

_OK = 200
_NOT_FOUND = 404
_LOOKED_BYTES = 1024 * 1024
_HOUR_S = 3600.0
_AWAITED_S = 600.0
_NAMES = 64
_NAME_LENGTH = 593  # host 350, namespace, model and tag 80 each (types/model/name.go)


class Listing(Protocol):
    """Tells which models there are: the part of the catalogue that is needed here."""

    @property
    def list_id(self) -> str | None:
        """Return the id of the list, which changes with its names; None without one."""

    def knows(self, full_name: str) -> bool:
        """Tell whether a model is listed or expected."""


class Launches(Protocol):
    """Tells what a wake would do: the part of the pool that is needed here."""

    @property
    def is_ready(self) -> bool:
        """Tell whether an instance serves."""

    @property
    def would_launch(self) -> bool:
        """Tell whether a wake would begin a launch, now or after the present stop."""


class UnknownModels:
    """Judges model names, and learns from instances which models do not exist.

    ``also_known``: returns names besides the listed ones. ``known_to_nodes``: tells of
    a pool with nodes whether any instance has a model, or will have it.
    """

    def __init__(
        self,
        rule: WakeRule,
        *,
        listing: Listing,
        launches: Launches,
        book: LessonBook,
        clock: Clock,
        starts_empty: bool,
        also_known: Callable[[], Collection[str]],
        known_to_nodes: Callable[[str], bool] | None = None,
    ) -> None:
        self._rule = rule
        self._listing = listing
        self._launches = launches
        self._book = book
        self._clock = clock
        self._starts_empty = starts_empty
        self._also_known = also_known
        self._known_to_nodes = known_to_nodes
        self._awaited: dict[str, float] = {}

    @property
    def awaits(self) -> bool:
        """Tell whether an instance woken for a name has not answered about it yet.

        For ten minutes: the client may never repeat its request.
        """
        if not self._awaited:
            return False
        last = max(self._awaited.values())
        return 0 <= self._clock.now() - last < _AWAITED_S

    @property
    def learns_of_presence(self) -> bool:
        """Tell whether an answer that succeeded may tell something new."""
        return self.awaits or bool(self._book.lessons.absent)

    def judge(self, name: str) -> Fate:
        """Return whether a request for a model may wake an instance; change nothing."""
        if not name:
            return Fate.PASS
        if self._known_to_nodes is not None:
            return self._judge_among_nodes(full_model_name(name))
        if self._rule is WakeRule.TRUE:
            return Fate.PASS
        if is_cloud_model(name) or self._launches.is_ready:
            return Fate.PASS
        full = full_model_name(name)
        if self._listing.knows(full):
            return Fate.PASS
        lessons = self._lessons()
        facts = NameFacts(
            known=self._is_known_besides(full, lessons),
            absent=full in lessons.absent or len(full) > _NAME_LENGTH,
            listed=self._listing.list_id is not None,
            starts_empty=self._starts_empty,
            launches=self._launches.would_launch,
            wakes=len(self._recent_wakes(lessons)),
        )
        return fate_of(self._rule, facts)

    def _judge_among_nodes(self, full: str) -> Fate:
        """Return `ABSENT` for a model that no node has, and no offer of ours.

        Called once no instance that is ready has taken the request.
        """
        known = self._known_to_nodes
        if known is None or known(full) or self._listing.knows(full):
            return Fate.PASS
        is_hoped_for = any(full_model_name(one) == full for one in self._also_known())
        return Fate.PASS if is_hoped_for else Fate.ABSENT

    def note_wake(self, name: str) -> None:
        """Record that an instance is started because of a name."""
        if not self.awaits:
            self._awaited.clear()
        full, lessons = full_model_name(name), self._lessons()
        lessons.wakes = [*self._recent_wakes(lessons), self._clock.now()]
        _add(lessons.woken, full)
        self._awaited[full] = self._clock.now()
        self._book.save()

    def next_look_s(self) -> float:
        """Return in how many seconds an unknown name may wake again."""
        wakes = self._recent_wakes(self._lessons())
        if len(wakes) < WAKES_PER_HOUR:
            return 0.0
        return max(0.0, wakes[-WAKES_PER_HOUR] + _HOUR_S - self._clock.now())

    def learn(self, facts: Facts, answer: Head) -> None:
        """Learn from an instance's own response whether it has a model.

        Only a JSON 404 counts: an older Ollama answers an unknown route with 404 and
        plain text. Called for every response, so the body is parsed only if there may
        be something to learn.
        """
        status = answer.status
        is_absent = status == _NOT_FOUND and "json" in media_type(answer.headers)
        is_there = (
            status == _OK
            and bool(self._awaited or self._book.lessons.absent)
            and self.learns_of_presence
            and len(facts.body.head) <= _LOOKED_BYTES
        )
        if not is_absent and not is_there:
            return
        fields = look(facts)
        if fields is not None and (name := sought_name(facts.route, fields)):
            self.heard(name, is_there=is_there)

    def heard(self, name: str, *, is_there: bool) -> None:
        """Record what an instance answered about a model that was asked for."""
        full, lessons = full_model_name(name), self._lessons()
        was_awaited = self._awaited.pop(full, None) is not None
        if self._listing.knows(full) or len(full) > _NAME_LENGTH:
            return
        before = (full in lessons.absent, full in lessons.served)
        if is_there and (was_awaited or before[0]):
            _drop(lessons.absent, full)
            _add(lessons.served, full)
        elif not is_there:
            _drop(lessons.served, full)
            _add(lessons.absent, full)
        _drop(lessons.woken, full)
        if before != (full in lessons.absent, full in lessons.served):
            self._book.save_soon()

    def list_asked(self) -> Callable[[], None]:
        """Return the function that records the list which is requested now.

        The list proves nothing about a name for which an instance is woken after the
        request.
        """
        return partial(self._listed, tuple(self._lessons().woken))

    def _listed(self, expected: Collection[str]) -> None:
        """Record an instance's new list: it lacks the names that it was woken for."""
        lessons = self._lessons()
        woken = [full for full in lessons.woken if full in expected]
        for full in woken:
            _drop(lessons.woken, full)
            if not self._listing.knows(full) and full not in lessons.served:
                _add(lessons.absent, full)
        if woken:
            self._book.save()

    def _is_known_besides(self, full: str, lessons: Lessons) -> bool:
        if full in lessons.served:
            return True
        return any(full_model_name(name) == full for name in self._also_known())

    def _lessons(self) -> Lessons:
        """Return the lessons, of which some hold only for the list as it is."""
        lessons, list_id = self._book.lessons, self._listing.list_id or ""
        if lessons.list_id != list_id:
            if lessons.list_id:  # the first list invalidates nothing
                lessons.absent.clear()
            lessons.list_id = list_id
        return lessons

    def _recent_wakes(self, lessons: Lessons) -> list[float]:
        now = self._clock.now()
        return [moment for moment in lessons.wakes if 0 <= now - moment < _HOUR_S]


def _add(names: list[str], name: str) -> None:
    """Add a name as the newest; the oldest goes if there are too many."""
    _drop(names, name)
    names.append(name)
    del names[:-_NAMES]


def _drop(names: list[str], name: str) -> None:
    if name in names:
        names.remove(name)
