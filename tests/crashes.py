"""A process that is killed before or after any call to its cloud."""

from typing import Any

import pytest


class Killed(BaseException):
    """The process ends here."""


def kill_around(
    monkeypatch: pytest.MonkeyPatch, api: type, method: str
) -> dict[str, int]:
    """Kill before or after the call of a number, counted from one.

    Returns the plan: set ``before`` or ``after``; ``seen`` counts the calls.
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
