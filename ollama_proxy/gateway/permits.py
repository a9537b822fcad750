"""Stand for admitted requests of keys, and count what each has used at its end."""

from typing import Final

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.access.token_estimate import MOST_TOKENS
from ollama_proxy.core.access.usual_sizes import PRIOR_TOKENS, UsualSizes
from ollama_proxy.core.access.work import Work
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.gateway.accounts import Account
from ollama_proxy.gateway.rates import Rate
from ollama_proxy.gateway.spending import Expense, Spending

_GROWTH_TOKENS: Final = 64
"""Tokens by which a reservation is enlarged each time an answer outgrows it."""


class KeyMeter:
    """Counts the requests of one key.

    ``rate``: None while the key has no limit of requests a minute.
    """

    __slots__ = ("in_flight", "rate")

    def __init__(self) -> None:
        self.in_flight = 0
        self.rate: Rate | None = None


class Settlement:
    """Takes in what admitted requests of all keys use, once they end.

    ``sizes``: how long the answers of each model are.
    """

    def __init__(self, clock: Clock, spending: Spending) -> None:
        self.spending = spending
        self.sizes = UsualSizes(PRIOR_TOKENS)
        self._clock = clock

    def note_answer(self, work: Work, output_tokens: int) -> None:
        """Remember how long an answer was."""
        if work.output_tokens != 0:
            self.sizes.add(work.model, output_tokens // max(work.answers, 1))

    def settle(self, account: Account, reserved: int, used: int) -> None:
        """Count what a request has used."""
        account.settle(reserved, used, self._clock.now())


class Permit:
    """Stands for an admitted request until its end, which settles it once.

    Further calls after its end do nothing. ``expense``: what it costs; None if that is
    nothing. ``needs_figures``: the tokens of its answer count for a limit, or tell how
    long the answers of a model are.
    """

    __slots__ = (
        "_account",
        "_is_open",
        "_meter",
        "_reserved",
        "_room",
        "_settlement",
        "expense",
        "needs_figures",
        "work",
    )

    def __init__(
        self,
        settlement: Settlement,
        meter: KeyMeter,
        work: Work,
        account: Account | None = None,
        reserved: int = 0,
        expense: Expense | None = None,
    ) -> None:
        self.work = work
        self.expense = expense
        self.needs_figures = account is not None or work.output_tokens != 0
        self._settlement = settlement
        self._meter = meter
        self._account = account
        self._reserved = reserved
        self._room = max(reserved - work.prompt_tokens, 0)
        self._is_open = True

    def undo(self) -> None:
        """End as if the request had never been admitted: it is admitted again."""
        if self._is_open and self._meter.rate is not None:
            self._meter.rate.give_back()
        self.end(0)

    def wish(self, pool: str) -> None:
        """Note that the request asks for an instance of a pool, and may wake one."""
        expense = self.expense
        if expense is not None and self._is_open and expense.key.rights.may_wake:
            self._settlement.spending.wish(expense, pool)

    def enter(self, launch_id: LaunchId) -> None:
        """Note that the request is sent to an instance, of which it pays its share."""
        if self.expense is not None and self._is_open:
            self._settlement.spending.enter(self.expense, launch_id)

    def leave(self) -> None:
        """Note that the request has left its instance."""
        if self.expense is not None:
            self._settlement.spending.leave(self.expense)

    def grow(self, output_tokens_so_far: int) -> None:
        """Reserve more if an answer has outgrown what was reserved for it."""
        if output_tokens_so_far <= self._room or self._account is None:
            return
        if not self._is_open:
            return
        more = min(output_tokens_so_far, MOST_TOKENS) + _GROWTH_TOKENS - self._room
        self._room += more
        self._reserved += more
        self._account.reserve_anyway(more)

    def settle(
        self,
        prompt_tokens: int | None,
        output_tokens: int | None,
        *,
        is_measured: bool = True,
    ) -> None:
        """End with the tokens that were used; both None: nothing was done.

        One that is None counts as it was reserved. ``is_measured``: the instance
        counted the tokens, and so tells how long the model's answers are.
        """
        if not self._is_open:
            return
        if prompt_tokens is None and output_tokens is None:
            self.end(0)
            return
        if is_measured and output_tokens is not None:
            self._settlement.note_answer(self.work, output_tokens)
        prompt = self.work.prompt_tokens if prompt_tokens is None else prompt_tokens
        output = self._room if output_tokens is None else output_tokens
        self.end(min(max(prompt, 0) + max(output, 0), MOST_TOKENS))

    def end(self, used: int = 0) -> None:
        """End with so many tokens used; none: nothing was done."""
        if not self._is_open:
            return
        self._is_open = False
        self._meter.in_flight -= 1
        if self.expense is not None:
            self._settlement.spending.end(self.expense)
        if self._account is not None:
            self._settlement.settle(self._account, self._reserved, used)
