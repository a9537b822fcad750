"""Hold a client's key and its rights. Values only; the text of a key is not kept."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NewType

from ollama_proxy.core.access.route_classes import RouteClass

KeyId = NewType("KeyId", str)
"""Names a key in commands, logs and the store: the 8 letters after ``op_``."""

DEFAULT_ROUTES: Final = frozenset({RouteClass.CHAT, RouteClass.EMBED, RouteClass.READ})
"""What a key may do by default."""

DEFAULT_PARALLEL: Final = 4
"""How many requests a key with a limit of tokens has at once by default."""


@dataclass(frozen=True, slots=True)
class Rights:
    """Holds what a key may do, and how much; None: no limit.

    - ``models``: globs of models; empty: all.
    - ``rpm``: requests a minute. ``parallel``: requests at once. ``tokens_per_day``:
      of prompts and answers, by UTC's day.
    - ``budget_day``, ``budget_month``: money, in millionths of the currency of the
      provider that is paid.
    - ``may_wake``: its requests start instances and keep them.
    - ``max_hold_s``: the longest wait for an instance.
    - ``priority``: of two waiting requests the higher is served first.

    Worked out once, since each request asks:

    - ``has_budget``: the key may spend only so much money. ``has_limits``: it may do
      only so much of what it may do.
    - ``needs_fields``: a request can only be judged once its body is read.
    - ``is_admin``: the key may give orders.
    """

    models: tuple[str, ...] = ()
    routes: frozenset[RouteClass] = DEFAULT_ROUTES
    rpm: int | None = None
    parallel: int | None = None
    tokens_per_day: int | None = None
    budget_day: int | None = None
    budget_month: int | None = None
    may_wake: bool = True
    max_hold_s: float | None = None
    priority: int = 0
    has_budget: bool = field(init=False, repr=False, compare=False)
    has_limits: bool = field(init=False, repr=False, compare=False)
    needs_fields: bool = field(init=False, repr=False, compare=False)
    is_admin: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        has_budget = self.budget_day is not None or self.budget_month is not None
        counts_tokens = self.tokens_per_day is not None
        is_counted = self.rpm is not None or self.parallel is not None or counts_tokens
        worked_out = {
            "has_budget": has_budget,
            "has_limits": has_budget or is_counted,
            "needs_fields": counts_tokens or bool(self.models),
            "is_admin": RouteClass.ADMIN in self.routes,
        }
        for name, value in worked_out.items():
            object.__setattr__(self, name, value)

    @property
    def most_at_once(self) -> int | None:
        """Return how many requests may be in flight; None: no limit.

        A limit of tokens needs one of these, since each request may exceed it by one
        answer.
        """
        if self.parallel is None and self.tokens_per_day is not None:
            return DEFAULT_PARALLEL
        return self.parallel

    @property
    def are_for_clients(self) -> bool:
        """Tell whether they let a client do anything but give orders."""
        return bool(self.routes - {RouteClass.ADMIN})


class KeyStanding(StrEnum):
    """Tells whether a key is taken now, or why not."""

    VALID = "valid"
    DISABLED = "disabled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Key:
    """Holds a key as it is stored: ``digest`` is the SHA-256 of its text.

    Moments are seconds since 1970. ``former_digest``: of the text before the last
    rotation, which is taken until ``former_until``.
    """

    id: KeyId
    name: str
    digest: bytes = field(repr=False)
    rights: Rights = Rights()
    made_at: float = 0.0
    expires_at: float | None = None
    is_disabled: bool = False
    former_digest: bytes = field(default=b"", repr=False)
    former_until: float = 0.0

    def standing(self, now: float) -> KeyStanding:
        """Tell whether the key is taken at a moment."""
        if self.is_disabled:
            return KeyStanding.DISABLED
        if self.expires_at is not None and now >= self.expires_at:
            return KeyStanding.EXPIRED
        return KeyStanding.VALID


class Caller:
    """Identifies the sender of a request: its key or order token, and its address.

    ``key``: None if none was needed, or if it was the order token. ``is_admin``: it may
    give orders and see what others do. ``is_own_page``: the proxy's own page asks, in a
    session of that key.
    """

    __slots__ = ("address", "is_admin", "is_own_page", "key")

    def __init__(
        self,
        address: str = "",
        key: Key | None = None,
        *,
        is_admin: bool = False,
        is_own_page: bool = False,
    ) -> None:
        self.is_own_page = is_own_page
        self.address = address
        self.key = key
        self.is_admin = is_admin

    @property
    def name(self) -> str:
        """Return the name of the key; "" if the caller has none."""
        return self.key.name if self.key is not None else ""

    @property
    def may_wake(self) -> bool:
        """Tell whether its requests start instances, and keep them."""
        return self.key is None or self.key.rights.may_wake


NOBODY: Final = Caller()
"""Stands for the caller of a request until access was checked."""
