"""Random histories of keys with limits: what always holds, whatever happens."""

import random

import pytest

from ollama_proxy.core.access.days import utc_day
from ollama_proxy.core.access.decision import KeyRefusal
from ollama_proxy.core.access.keys import Key
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.core.access.spending import Forecast
from ollama_proxy.core.access.work import Work
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.gateway.permits import Permit
from tests.gateway.test_spending import BOOT_S, IDLE_S, PRICE, Rig

SEEDS = 60
STEPS = 300
TOKENS, PARALLEL, DAY = 5_000, 6, 2_000_000
LONGEST_ANSWER = 900


class History:
    """One key that asks, answers, grows and dies at random, and what it did."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rig = Rig()
        self.key: Key = self.rig.key(
            tokens_per_day=TOKENS, parallel=PARALLEL, budget_day=DAY
        )
        self.permits: list[Permit] = []
        self.launches = 0
        self.running: LaunchId | None = None

    def committed(self) -> int:
        """Return the tokens of today that the store promises."""
        rows = self.rig.store.commitments(self.key.id)
        return rows.get(("tokens", utc_day(self.rig.clock.date)), 0)

    def tokens(self) -> int:
        found = self.rig.limits.tokens_of(self.key)
        assert found is not None
        return found

    def ask(self) -> None:
        wakes = self.running is None
        self.rig.prices.next = Forecast(PRICE, wakes, BOOT_S, IDLE_S)
        output = self.rng.choice([None, 1, 50, 400])
        work = Work(RouteClass.CHAT, "m", self.rng.randrange(1, 100), output)
        before = self.tokens()
        admitted = self.rig.limits.admit(self.key, work, self.rig.clock.now())
        if isinstance(admitted, KeyRefusal):
            assert self.tokens() == before
            return
        assert before < TOKENS
        assert len(self.permits) < PARALLEL
        self.permits.append(admitted)
        if wakes:
            admitted.wish("default")
            self.launches += 1
            self.running = LaunchId(f"l{self.launches:016}")
            self.rig.launched(self.running)
        assert self.running is not None
        admitted.enter(self.running)

    def end(self) -> None:
        if not self.permits:
            return
        permit = self.permits.pop(self.rng.randrange(len(self.permits)))
        match self.rng.randrange(4):
            case 0:
                permit.undo()
            case 1:
                permit.settle(None, None)
            case _:
                prompt = self.rng.randrange(100)
                output = self.rng.randrange(LONGEST_ANSWER)
                permit.grow(output)
                permit.settle(prompt, output)

    def pass_time(self) -> None:
        self.rig.pass_s(self.rng.choice([0.1, 1.0, 30.0, 400.0]))
        if self.running and not self.permits and self.rng.random() < 0.3:
            self.rig.spending.gone(self.running)
            self.running = None

    def jump(self) -> None:
        self.rig.clock.date += self.rng.choice([-7200.0, 7200.0])

    def crash(self) -> None:
        before, spent = self.tokens(), self.rig.spending.totals(self.key)[0]
        self.rig.begin_process()
        self.permits.clear()
        assert self.tokens() >= before
        assert self.rig.spending.totals(self.key)[0] >= spent
        if self.running is not None:
            self.rig.launched(self.running, is_new=False)

    def end_cleanly(self) -> None:
        while self.permits:
            self.end()
        before, spent = self.tokens(), self.rig.spending.totals(self.key)[0]
        self.rig.restart()
        assert self.tokens() == before
        assert self.rig.spending.totals(self.key)[0] <= spent
        if self.running is not None:
            self.rig.launched(self.running, is_new=False)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_history_exceeds_a_limit_by_more_than_stated(seed: int) -> None:
    history = History(seed)
    steps = [history.ask] * 10 + [history.end] * 6 + [history.pass_time] * 3
    steps += [history.jump, history.crash, history.end_cleanly]
    for _ in range(STEPS):
        history.rng.choice(steps)()
        total = history.tokens()
        assert total <= history.committed()
        assert total <= TOKENS + PARALLEL * (LONGEST_ANSWER + 612)

    while history.permits:
        history.end()
    if history.running is not None:
        history.rig.spending.gone(history.running)
    assert history.rig.limits.in_flight(history.key.id) == 0
    for account in history.rig.spending._purses.of(history.key):
        assert account.reserved == 0
