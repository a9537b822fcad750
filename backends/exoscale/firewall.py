"""Decide which addresses the security group allows: only the proxy's.

Without `allowed` networks, the proxy's own address is read from Exoscale's log of
changes. If it changes, the new address is allowed beside the old one, and the old one
is removed after a connection from the new one succeeded. If a crash interrupts a change
of the rules, the next look mends it.
"""

import math
from collections.abc import Awaitable, Callable, Collection, Sequence

import structlog

from ollama_proxy.backends.exoscale.api import ExoscaleApi
from ollama_proxy.backends.exoscale.security_group import (
    ANYWHERE,
    Rules,
    SecurityGroup,
    is_one_address,
    networks_of,
    remove_group,
    rules_of,
)
from ollama_proxy.backends.exoscale.seen_address import Sighting, last_sighting
from ollama_proxy.base import log
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import BackendError

_ENSURED_S = 300.0
_LOOK_S = 20.0
_AWAITING_LOOK_S = 4.0
_TOUCH_S = 90.0
_LAG_S = 120.0
"""How long the log may lag behind our own call, before rules are ruled out as the
cause."""
_ADMITTED_S = 30.0
_MOST_KEPT = 3


class Firewall:
    """Keeps the group as it has to be, whatever was there before."""

    def __init__(
        self,
        owner_id: str,
        allowed: Sequence[str],
        clock: Clock,
        *,
        offer: str = "",
    ) -> None:
        self._group = SecurityGroup(owner_id, offer)
        self.notice = ""
        self._owner_id = owner_id
        self._allowed = tuple(allowed)
        self._clock = clock
        self._ensured_at = -math.inf
        self._looked_at = -math.inf
        self._reached_at = -math.inf
        self._admitted_at = -math.inf
        self._touched_at = -math.inf
        self._awaits_after: Sighting | None = None
        self._is_awaiting = False
        self._is_narrow = False
        self._is_as_allowed = False
        self._is_busy = False
        self._dropped: set[str] = set()
        self._keeps_all = False
        self._log = structlog.get_logger()

    async def ensure(self, api: ExoscaleApi) -> str:
        """Set the group's rules for an instance about to start; return the group's id.

        The rules allow the networks of ``allowed``. Without these, our address is
        allowed if it is known, and earlier addresses stay until the instance was
        reached. The result is reused for some minutes, so that a repeated start makes
        progress.
        """
        now = self._clock.now()
        if self._group.id is not None and now - self._ensured_at < _ENSURED_S:
            return self._group.id
        self._ensured_at = -math.inf  # until its rules are set
        group = await self._group.find(api) or await self._group.create(api)
        rules = rules_of(group)
        if self._allowed:
            await self._have_allowed(api, rules)
        else:
            await self._prepare(api, rules)
        self._ensured_at = self._clock.now()
        self._is_narrow = False
        return str(group["id"])

    def forget(self) -> None:
        """Look for the group anew: it may have been deleted by somebody."""
        self._group.id, self._ensured_at = None, -math.inf

    async def tend(
        self,
        api: ExoscaleApi,
        *,
        reached: bool,
        names: Collection[str] = (),
        touch: Callable[[], Awaitable[None]],
    ) -> str:
        """Update the rules to our address; return why an instance is not reached.

        Returns "" if it is reached, or if the rules are not the cause. ``reached``: the
        running instance has just accepted a connection. ``names``: other names of ours
        in the log. ``touch``: makes a harmless change, so that the log gets an entry
        with our present address. Looks at most every 4 s. Errors of the API are logged.
        """
        now = self._clock.now()
        if reached:
            self._reached_at, self._is_awaiting = now, False
        else:
            self._is_narrow = False
        if self._is_as_allowed or (reached and self._is_narrow):
            return ""
        pause_s = _AWAITING_LOOK_S if self._is_awaiting else _LOOK_S
        if not self._is_busy and now - self._looked_at >= pause_s:
            self._is_busy, self._looked_at = True, now
            try:
                await self._look(api, reached=reached, names=names, touch=touch)
            except BackendError as error:
                self._log.warning(log.FIREWALL_FAILED, error=str(error))
            finally:
                self._is_busy = False
        return "" if reached else self._excuse()

    def _excuse(self) -> str:
        """Return why the rules may be what keeps us from an instance, if they may."""
        now = self._clock.now()
        if now - self._admitted_at < _ADMITTED_S:
            return self.notice
        if self._is_awaiting and now - self._touched_at < _LAG_S:
            return (
                "it can't be connected to: perhaps our address has changed, which"
                " Exoscale's log of events has still to tell"
            )
        return ""

    async def _look(
        self,
        api: ExoscaleApi,
        *,
        reached: bool,
        names: Collection[str],
        touch: Callable[[], Awaitable[None]],
    ) -> None:
        group = await self._group.find(api)
        if group is None:
            return
        rules = rules_of(group)
        if self._allowed:  # the setting may be newer than the instance
            await self._have_allowed(api, rules)
            return
        if reached and len(networks_of(rules)) == 1 and ANYWHERE not in rules:
            self._is_narrow, self.notice = True, ""
            return
        sighting, _ = await self._sighting(api, names)
        if sighting != self._awaits_after:
            self._is_awaiting = False
        if sighting is None:
            await self._go_without(api, rules, reached=reached)
        elif sighting.network not in rules:
            await self._admit(api, rules, sighting.network)
        elif reached:
            await self._narrow(api, rules, sighting.network)
        if sighting is not None and ANYWHERE in rules:
            await self._narrow(api, rules, sighting.network, {ANYWHERE})
        if not reached and ANYWHERE not in rules and self._may_touch(api):
            self._touched_at, self._is_awaiting = self._clock.now(), True
            self._awaits_after = sighting
            await touch()

    async def _have_allowed(self, api: ExoscaleApi, rules: Rules) -> None:
        """Allow the networks of the settings, and no others."""
        await self._group.replace(api, rules, set(self._allowed), set(rules))
        self._is_as_allowed = True

    def _may_touch(self, api: ExoscaleApi) -> bool:
        """Tell whether the log's latest entry may come from our old address.

        Once for each time that the instance was reached and then was not, whatever was
        changed before; otherwise when the last change is old enough.
        """
        last = max(self._touched_at, api.changed_at)
        is_first = self._touched_at < self._reached_at
        return is_first or self._clock.now() - last > _TOUCH_S

    async def _go_without(
        self, api: ExoscaleApi, rules: Rules, *, reached: bool
    ) -> None:
        """Allow every address, if none is allowed and the proxy's own is unknown."""
        if not reached and not networks_of(rules):
            await self._open(api, rules)
        if ANYWHERE in rules:
            self.notice = (
                "everybody may connect to the instance, with TLS and token: Exoscale's"
                " log of events does not tell our address; set EXOSCALE_ALLOWED_CIDR"
            )

    async def _open(self, api: ExoscaleApi, rules: Rules) -> None:
        self._log.warning(log.FIREWALL_OPEN, group=self._group.name)
        await self._group.replace(api, rules, {ANYWHERE}, set())

    async def _admit(self, api: ExoscaleApi, rules: Rules, network: str) -> None:
        """Let a new address in, besides those that are let in already."""
        others = networks_of(rules) - {ANYWHERE}
        self._keeps_all = self._keeps_all or network in self._dropped
        surplus = others if len(others) >= _MOST_KEPT else set()
        await self._group.replace(api, rules, {network}, surplus)
        self._admitted_at, self._is_narrow = self._clock.now(), False
        self.notice = f"the security group lets in our address {network}"
        if others:
            self.notice += f", besides {', '.join(sorted(others))} of before"
        self._log.warning(
            log.FIREWALL_ADMITTED,
            group=self._group.name,
            network=network,
            others=len(others),
        )

    async def _narrow(
        self,
        api: ExoscaleApi,
        rules: Rules,
        network: str,
        old: Collection[str] | None = None,
    ) -> None:
        """Remove all other networks from the rules; ``old``: remove only these."""
        going = (set(rules) if old is None else set(old)) - {network}
        if old is None and self._keeps_all:
            going = {name for name in going if not is_one_address(name)}
        await self._group.replace(api, rules, set(), going)
        self._dropped |= going
        self._is_narrow = old is None
        self.notice = ""
        if going:
            self._log.info(
                log.FIREWALL_NARROWED,
                group=self._group.name,
                network=network,
                removed=len(going),
            )

    async def _prepare(self, api: ExoscaleApi, rules: Rules) -> None:
        """Allow our address, if it is known; remove rules that are not networks."""
        sighting, is_readable = await self._sighting(api, ())
        strange = {name for name in rules if "/" not in name}
        if sighting is not None:
            if sighting.network not in rules:
                await self._admit(api, rules, sighting.network)
            await self._group.replace(api, rules, set(), strange | {ANYWHERE})
            return
        await self._group.replace(api, rules, set(), strange)
        if not is_readable and not networks_of(rules):
            await self._open(api, rules)

    async def _sighting(
        self, api: ExoscaleApi, names: Collection[str]
    ) -> tuple[Sighting | None, bool]:
        """Return where our calls come from, and whether the log could be read."""
        try:
            events = await api.call("list_events")
        except BackendError:
            return None, False
        ours = {self._owner_id, self._group.id or self._group.name, *names}
        return last_sighting(events or [], key=api.key, names=ours), True

    async def remove(self, api: ExoscaleApi) -> None:
        """Delete the group; raises as `remove_group` does."""
        self.forget()
        await remove_group(api, self._group.name)
