"""A process that is killed before or after any call to its cloud."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


class Killed(BaseException):
    """The process ends here."""


def kill_around(
    monkeypatch: pytest.MonkeyPatch, api: type, method: str
) -> dict[str, int]:
    """Kill before or after the call of a number, counted from one.

    Returns the plan: set its ``before`` or ``after``. ``seen`` counts the calls.
    """
    plan = {"before": 0, "after": 0, "seen": 0}
    call = getattr(api, method)

    async def killing(*arguments: Any, **more: Any) -> Any:
        plan["seen"] += 1
        if plan["seen"] == plan["before"]:
            raise Killed
        answer = await call(*arguments, **more)
        if plan["seen"] == plan["after"]:
            raise Killed
        return answer

    monkeypatch.setattr(api, method, killing)
    return plan


@dataclass(slots=True)
class Death:
    """A process that ends before or after the call of a number, counted from one.

    Nothing happens afterwards: no later call, and no note, not even in a `finally`.
    """

    moment: str = "before"
    number: int = 0
    seen: int = 0
    came: bool = False

    def plan(self, moment: str, number: int) -> None:
        """Begin a process that ends at that call; at none for the number 0."""
        self.moment, self.number, self.seen, self.came = moment, number, 0, False

    def watch(
        self, monkeypatch: pytest.MonkeyPatch, api: type, method: str, notes: type
    ) -> None:
        """Have a cloud's calls, and what is noted, be those of that process."""
        call = getattr(api, method)

        async def calling(*arguments: Any, **more: Any) -> Any:
            self.seen += 1
            self._reach("before")
            try:
                answer = await call(*arguments, **more)
            except Exception:  # a call that is refused is one like any other
                self._reach("after")
                raise
            self._reach("after")
            return answer

        monkeypatch.setattr(api, method, calling)
        for name in ("put_note", "drop_note"):
            monkeypatch.setattr(notes, name, self._while_alive(getattr(notes, name)))

    def _reach(self, moment: str) -> None:
        self.came |= self.moment == moment and self.seen == self.number
        if self.came:
            raise Killed

    def _while_alive(self, write: Callable[..., None]) -> Callable[..., None]:
        def writing(*arguments: Any) -> None:
            if self.came:
                raise Killed
            write(*arguments)

        return writing
