"""Tell what keys used: ``GET /-/usage``, to a key of itself, to an owner of all."""

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from ollama_proxy.core.access.keys import Caller, KeyId
from ollama_proxy.core.access.usage import DAYS_KEPT, UsageField, UsageRow
from ollama_proxy.gateway.keyring import Keyring
from ollama_proxy.gateway.usage_book import UsageBook
from ollama_proxy.server.admin.answers import json_answer
from ollama_proxy.server.caller import caller_of

MOST_TOLD: Final = 10_000
"""How many rows one answer has: those of the newest days."""

DAYS_TOLD: Final = 30
"""How many days an answer covers by default, today included."""

_LONGEST_WORD = 100


class UsageQueryError(Exception):
    """Reports a query that can't be answered; ``status``: of the refusal."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UsageHandlers:
    """Answers what was used, by day, key and model."""

    def __init__(self, usage: UsageBook, keyring: Keyring) -> None:
        self._usage = usage
        self._keyring = keyring

    def routes(self) -> list[web.RouteDef]:
        """Return the route of usage."""
        return [web.get("/-/usage", self.usage)]

    async def usage(self, request: web.Request) -> web.Response:
        """Return sums of the last ``days``, grouped ``by``, of one ``key`` or of all.

        An owner sees all keys, a key itself alone.
        """
        query = request.query
        try:
            by = _fields(query.get("by", "key"))
            days = _days(query.get("days", str(DAYS_TOLD)))
            key_id = self._key_id(caller_of(request), query.get("key", ""))
        except UsageQueryError as error:
            return json_answer({"error": str(error)}, status=error.status)
        rows = self._usage.usage(days, key_id, by)
        return json_answer({"days": days, **usage_body(rows, by)})

    def _key_id(self, caller: Caller, wanted: str) -> KeyId | None:
        """Return the key that a request asks about; None: all keys.

        Raises `UsageQueryError`.
        """
        own = caller.key
        if not caller.is_admin:
            if own is None:
                raise UsageQueryError(
                    "usage is told to a key of itself, and of all keys to one with the"
                    " right admin; send a key, or call `ollama-proxy usage`",
                    403,
                )
            if wanted not in {"", own.name, own.id}:
                raise UsageQueryError(
                    f"the key {own.name!r} lacks the right 'admin', so it sees its own"
                    " usage alone",
                    403,
                )
            return own.id
        if not wanted:
            return None
        found = self._keyring.by_name(wanted) or self._keyring.by_id(KeyId(wanted))
        # A key that was removed is found by its id.
        return found.id if found is not None else KeyId(wanted[:_LONGEST_WORD])


def usage_body(
    rows: Sequence[UsageRow], by: Collection[UsageField], most: int = MOST_TOLD
) -> dict[str, Any]:
    """Return rows for an answer: the last ones, and how many are left out."""
    kept = rows[-most:]
    return {
        "by": sorted(by),
        "usage": [_body(row, by) for row in kept],
        "left_out": len(rows) - len(kept),
    }


def _fields(words: str) -> frozenset[UsageField]:
    """Return what to group by. Raises `UsageQueryError`."""
    known = {field.value for field in UsageField}
    given = [word.strip() for word in words[:_LONGEST_WORD].split(",")]
    for word in given:
        if word not in known:
            raise UsageQueryError(
                f"by: {word!r} is nothing to group by, write some of"
                f" {', '.join(sorted(known))}, with commas",
                400,
            )
    return frozenset(map(UsageField, given))


def _days(word: str) -> int:
    """Return how many days to tell of. Raises `UsageQueryError`."""
    is_number = word.isascii() and word.isdecimal() and len(word) < _LONGEST_WORD
    days = int(word) if is_number else 0
    if not 1 <= days <= DAYS_KEPT:
        raise UsageQueryError(
            f"days: {word[:_LONGEST_WORD]!r} is no number of days from 1 to"
            f" {DAYS_KEPT}, as many as are kept",
            400,
        )
    return days


def _body(row: UsageRow, by: Collection[UsageField]) -> dict[str, Any]:
    """Return a row for an answer: without the fields that it is not grouped by."""
    body: dict[str, Any] = msgspec.structs.asdict(row)
    key = {"key": body.pop("key_name"), "key_id": body.pop("key_id")}
    day, model = body.pop("day"), body.pop("model")
    head: dict[str, Any] = {}
    if UsageField.DAY in by:
        head["day"] = day
    if UsageField.KEY in by:
        head |= key
    if UsageField.MODEL in by:
        head["model"] = model
    return {**head, **body, "seconds": round(row.seconds, 3)}
