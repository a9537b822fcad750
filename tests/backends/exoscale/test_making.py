"""What a create operation that failed afterwards says, and what it means."""

import pytest

from ollama_proxy.backends.base.placement import Placement
from ollama_proxy.backends.exoscale.making import Making, read_making

PLACEMENT = Placement("ch-gva-2", "gpua5000.small")


@pytest.mark.parametrize("state", ["pending", "success", "unheard-of"])
def test_what_has_not_failed_has_no_words(state: str) -> None:
    assert read_making({"state": state, "reason": "busy"}, PLACEMENT) == Making(state)


def test_an_operation_may_lack_any_key() -> None:
    assert read_making({}, PLACEMENT) == Making("pending")
    assert read_making({"state": "failure"}, PLACEMENT) == Making(
        "failure",
        "Exoscale made no gpua5000.small in ch-gva-2: no reason given",
        "capacity",
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [("unavailable", "capacity"), ("busy", "capacity"), ("forbidden", "")],
)
def test_want_of_room_is_told_from_an_order_that_is_wrong(
    code: str, reason: str
) -> None:
    operation = {"state": "failure", "reason": code, "message": "no\n host left"}
    made = read_making(operation, PLACEMENT)

    assert made.words.endswith(f"in ch-gva-2: {code}: no host left")
    assert (made.has_failed, made.reason) == (True, reason)
