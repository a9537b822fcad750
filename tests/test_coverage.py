"""What is left out of coverage is left out in the workers of xdist too."""

import sys

import pytest


@pytest.mark.no_cover
def test_a_test_that_is_left_out_of_coverage_has_no_tracer() -> None:
    assert sys.gettrace() is None
