"""What is told of a key's use, beside its limits."""

from ollama_proxy.core.access.spending import Forecast
from ollama_proxy.gateway.key_use import use_body
from tests.gateway.test_spending import PRICE, Rig


def test_a_key_without_limits_tells_its_requests_alone() -> None:
    rig = Rig()
    key = rig.key()
    rig.begin(key)

    assert use_body(rig.limits, key) == {
        "in_flight": 1,
        "tokens_today": None,
        "spent_today": None,
        "spent_this_month": None,
    }


def test_what_is_reserved_is_told_after_a_restart_too() -> None:
    rig = Rig()
    key = rig.key(tokens_per_day=1000, budget_day=10**7, budget_month=10**8)
    rig.prices.next = Forecast(PRICE)
    rig.begin(key)
    before = use_body(rig.limits, key)
    rig.restart()

    assert before["tokens_today"] == 20
    assert before["spent_today"] == before["spent_this_month"] == 0.06
    assert use_body(rig.limits, key) == {**before, "in_flight": 0}


def test_what_can_not_be_read_is_not_told() -> None:
    rig = Rig()
    rig.store.is_unreadable = True

    told = use_body(rig.limits, rig.key(tokens_per_day=1, budget_day=1))
    assert set(told.values()) == {0, None}
