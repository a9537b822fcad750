"""Where our calls come from: the newest event of ours, whatever else is in the log."""

from typing import Any

import pytest

from ollama_proxy.backends.exoscale.seen_address import last_sighting

OURS = "0123456789abcdef"


def event(source: object, at: object, **more: Any) -> dict[str, Any]:
    return {"source-ip": source, "timestamp": at, "iam-api-key": {"key": "EXO1"}} | more


def about(instance_id: str) -> dict[str, Any]:
    return {"path-params": {"id": instance_id}}


def network(*events: Any) -> str | None:
    seen = last_sighting(events, key="EXO1", names={OURS, "i-1"})
    return seen.network if seen else None


def test_the_newest_event_of_the_key_tells_the_address() -> None:
    older = event("203.0.113.1", "2026-11-29T10:00:00.900Z")
    newer = event("203.0.113.2", "2026-11-29T10:00:01Z")

    assert network(newer, older) == network(older, newer) == "203.0.113.2/32"


def test_moments_are_compared_and_not_their_text() -> None:
    newer = event("203.0.113.2", "2026-11-29T12:00:00+01:00")
    older = event("203.0.113.1", "2026-11-29T10:59:59.999Z")

    assert network(older, newer) == "203.0.113.2/32"


def test_what_names_something_of_ours_wins_over_another_user_of_the_key() -> None:
    ours = event("203.0.113.1", "2026-11-29T10:00:00Z", **about("i-1"))
    theirs = event("203.0.113.2", "2026-11-29T11:00:00Z", **about("i-2"))
    created = event(
        "203.0.113.3",
        "2026-11-29T10:30:00Z",
        **{"body-params": {"labels": {"owner": f"o{OURS}"}}},
    )

    assert network(ours, theirs) == "203.0.113.1/32"
    assert network(ours, theirs, created) == "203.0.113.3/32"


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "text",
        {},
        event("203.0.113.9", None),
        event("203.0.113.9", "yesterday"),
        event("203.0.113.9", 7),
        event(None, "2026-11-29T12:00:00Z"),
        event("", "2026-11-29T12:00:00Z"),
        event("2001:db8::1", "2026-11-29T12:00:00Z"),
        event("203.0.113.9/0", "2026-11-29T12:00:00Z"),
        event(["203.0.113.9"], "2026-11-29T12:00:00Z"),
        event("203.0.113.9", "2026-11-29T12:00:00Z") | {"iam-api-key": None},
        event("203.0.113.9", "2026-11-29T12:00:00Z") | {"iam-api-key": {"key": "EXO2"}},
    ],
)
def test_what_is_odd_or_not_ours_tells_nothing(odd: Any) -> None:
    known = event("203.0.113.1", "2026-11-29T10:00:00Z")

    assert network(odd) is None
    assert network(odd, known) == "203.0.113.1/32"


def test_a_moment_without_a_zone_is_taken_for_utc() -> None:
    assert (
        network(
            event("203.0.113.1", "2026-11-29T10:00:00"),
            event("203.0.113.2", "2026-11-29T10:00:01Z"),
        )
        == "203.0.113.2/32"
    )
