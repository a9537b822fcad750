"""When a lease is marked anew."""

import pytest

from ollama_proxy.backends.base.expiry import is_renewal_due
from ollama_proxy.base.moments import EARLIEST

LEASE_S = 3600.0
TODAY = EARLIEST + 300 * 86_400.0
YEAR_S = 365 * 86_400.0


@pytest.mark.parametrize(
    ("left_s", "is_due"),
    [
        (LEASE_S, False),
        (0.51 * LEASE_S, False),
        (0.49 * LEASE_S, True),
        (-10.0, True),
        (-TODAY, True),  # no mark
        (-56 * YEAR_S, True),  # marked in 1970
        (1.9 * LEASE_S, False),  # a clock that goes a little wrong
        (73 * YEAR_S, True),  # marked in 2099
    ],
)
def test_a_lease_is_renewed_by_half_or_if_its_clock_was_wrong(
    left_s: float, is_due: bool
) -> None:
    assert is_renewal_due(TODAY + left_s, TODAY, LEASE_S) is is_due


def test_a_machine_that_has_lost_the_date_shortens_no_lease() -> None:
    assert not is_renewal_due(TODAY, 60.0, LEASE_S)
