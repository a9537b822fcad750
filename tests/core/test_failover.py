"""What becomes of a request after each attempt on a node of the house."""

import itertools

import pytest

from ollama_proxy.core.failover import (
    MOST_NODES,
    Attempt,
    Then,
    answer_at_end,
    asks_for_retry,
    follow,
    proven_faults,
)

REFUSED = Attempt("a", "refused the connection")
BROKEN = Attempt("a", "broke off", was_sent=True)
RELAY, NEXT, END = Then.RELAY, Then.NEXT, Then.END
EVERY = [
    REFUSED,
    BROKEN,
    *(Attempt("a", "", status) for status in (200, 404, 500, 502, 503, 504)),
]


def answered(status: int) -> Attempt:
    return Attempt("a", f"answered {status}", status, was_sent=True)


def after(
    *attempts: Attempt, before: int = 0, may: bool = False, can: bool = True
) -> Then:
    return follow(attempts, before=before, may_repeat=may, can_repeat=can)


@pytest.mark.parametrize("may", [False, True])
@pytest.mark.parametrize("can", [False, True])
@pytest.mark.parametrize(
    "status", [200, 201, 204, 301, 400, 401, 404, 405, 413, 429, 499, 501, 505, 599]
)
def test_an_answer_that_is_the_nodes_own_goes_to_the_client(
    status: int,
    may: bool,
    can: bool,
) -> None:
    assert after(answered(status), may=may, can=can) is RELAY


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_another_node_is_asked_after_a_server_error(status: int) -> None:
    assert after(answered(status)) is NEXT


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_body_that_is_gone_is_not_sent_to_another_node(status: int) -> None:
    assert after(answered(status), can=False) is END
    assert after(BROKEN, may=True, can=False) is END


def test_a_request_that_was_not_sent_goes_to_another_node_in_any_case() -> None:
    assert after(REFUSED) is NEXT
    assert after(REFUSED, can=False) is NEXT


def test_a_break_after_sending_is_the_end_unless_the_client_asked_for_more() -> None:
    assert after(BROKEN) is END
    assert after(BROKEN, may=True) is NEXT


def test_two_nodes_that_answer_500_are_believed() -> None:
    assert after(answered(500), answered(500)) is END


@pytest.mark.parametrize("between", [answered(502), answered(503), REFUSED])
def test_a_500_gets_its_second_opinion_even_after_other_failures(
    between: Attempt,
) -> None:
    assert after(answered(500), between) is NEXT
    assert after(between, answered(500)) is NEXT


@pytest.mark.parametrize("last", [one for one in EVERY if not one.is_final])
def test_no_request_goes_to_a_fourth_node(last: Attempt) -> None:
    for first, second in itertools.product(EVERY, repeat=2):
        assert after(first, second, last, may=True) is END
    assert after(last, before=MOST_NODES - 1, may=True) is END
    assert after(REFUSED, last, before=1, may=True) is END


def test_the_third_nodes_own_answer_goes_to_the_client() -> None:
    assert after(answered(502), REFUSED, answered(200)) is RELAY
    assert after(answered(404), before=2) is RELAY


def test_the_last_answer_passes_if_every_node_answers() -> None:
    assert answer_at_end([answered(503), answered(502)]) == 1
    assert answer_at_end([answered(500)]) == 0


def test_an_answer_passes_though_a_later_node_could_not_be_reached() -> None:
    assert answer_at_end([answered(503), REFUSED]) == 0
    assert answer_at_end([REFUSED, answered(503), REFUSED]) == 1


def test_no_answer_passes_while_a_later_node_may_work_on_the_request() -> None:
    assert answer_at_end([answered(503), BROKEN]) is None
    assert answer_at_end([answered(503), BROKEN, REFUSED]) is None
    assert answer_at_end([BROKEN, answered(503)]) == 1


def test_there_is_nothing_to_pass_without_an_answer() -> None:
    assert answer_at_end([REFUSED, REFUSED, REFUSED]) is None
    assert answer_at_end([]) is None


@pytest.mark.parametrize(
    ("attempt", "counts"),
    [
        (REFUSED, True),
        (BROKEN, True),
        (answered(502), True),
        (answered(504), True),
        (answered(503), False),
        (answered(500), False),
        (answered(404), False),
        (answered(429), False),
        (answered(200), False),
    ],
)
def test_what_counts_against_a_node(
    attempt: Attempt,
    counts: bool,
) -> None:
    assert attempt.is_failure is counts


def test_a_500_counts_once_another_node_has_done_the_same_request() -> None:
    attempts = [answered(500), answered(502), REFUSED]

    assert list(proven_faults(attempts, 200)) == [0]


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_500_does_not_count_if_no_node_does_the_request(status: int) -> None:
    assert list(proven_faults([answered(500)], status)) == []


def test_only_one_value_asks_for_a_repeated_request() -> None:
    assert asks_for_retry("always")
    assert asks_for_retry(" Always ")
    for value in ("", "never", "1", "true", "always, always", "always!"):
        assert not asks_for_retry(value)
