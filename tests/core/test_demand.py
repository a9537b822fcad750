"""How much work arrives, and what is assumed until it is measured."""

import pytest

from ollama_proxy.core.demand import SERVICE_PRIOR_S, Arrival, DemandMeter, boot_prior_s


def test_the_load_is_the_arrivals_of_a_window_times_what_each_takes() -> None:
    meter = DemandMeter()
    for second in range(60):
        meter.arrived("a client", float(second))

    assert meter.load(60.0, 30.0) == pytest.approx(60 * 20.0 / 120.0)
    assert meter.load(60.0, 600.0) == pytest.approx(60 * 20.0 / 600.0)


def test_old_arrivals_are_forgotten() -> None:
    meter = DemandMeter()
    meter.arrived("a client", 0.0)

    assert meter.load(119.0, 30.0) > 0.0
    assert meter.load(126.0, 30.0) == 0.0


def test_a_retry_after_our_own_refusal_counts_once() -> None:
    meter = DemandMeter()
    for second in range(0, 60, 10):
        meter.arrived("a client", float(second))
        meter.refused("a client", float(second))

    assert meter.load(60.0, 30.0) == pytest.approx(20.0 / 120.0)


def test_a_client_with_two_refused_requests_retries_both() -> None:
    meter = DemandMeter()
    for _ in range(2):
        meter.arrived("a client", 0.0)
        meter.refused("a client", 0.0)
    for _ in range(3):
        meter.arrived("a client", 10.0)

    assert meter.load(20.0, 30.0) == pytest.approx(3 * 20.0 / 120.0)


def test_one_request_counts_once_however_often_it_asks() -> None:
    meter, request = DemandMeter(), Arrival("a client")
    for second in (0.0, 10.0, 20.0):  # it waits, fails on an instance, waits again
        meter.note(request, second)

    assert meter.load(60.0, 30.0) == pytest.approx(20.0 / 120.0)


def test_a_retry_is_the_next_request_of_its_client_or_the_same_one() -> None:
    meter = DemandMeter()
    refused, unknown = Arrival("a client"), Arrival("a client")
    meter.note(refused, 0.0)
    meter.note_refused(refused, 0.0)
    meter.note_refused(unknown, 0.0)  # it was never counted
    meter.note(refused, 10.0)
    assert meter.load(20.0, 30.0) == pytest.approx(20.0 / 120.0)
    meter.note(Arrival("a client"), 20.0)

    assert meter.load(60.0, 30.0) == pytest.approx(2 * 20.0 / 120.0)


def test_another_clients_refusal_is_no_excuse() -> None:
    meter = DemandMeter()
    meter.refused("a client", 0.0)
    meter.arrived("another", 1.0)

    assert meter.load(2.0, 30.0) > 0.0


def test_memory_is_bounded_whatever_arrives() -> None:
    meter = DemandMeter()
    for number in range(10_000):
        meter.refused(number, 0.0)
        meter.arrived("a client", float(number))

    assert len(meter._refused) == 4096
    assert len(meter._counts) <= 3600 / 5 + 2


def test_a_clock_that_steps_back_loses_no_arrival() -> None:
    meter = DemandMeter()
    meter.arrived("a client", 1000.0)
    meter.arrived("a client", 990.0)

    assert meter.load(1000.0, 30.0) == pytest.approx(2 * 20.0 / 120.0)


def test_the_first_service_times_pull_the_assumed_one_towards_them() -> None:
    meter = DemandMeter()
    assert (meter.service_s, meter.is_service_measured) == (SERVICE_PRIOR_S, False)

    meter.served(10.0)

    assert (meter.service_s, meter.is_service_measured) == (15.0, True)


def test_service_times_are_followed_when_they_change() -> None:
    meter = DemandMeter()
    for _ in range(1000):
        meter.served(10.0)
    for _ in range(100):
        meter.served(60.0)

    assert 55.0 < meter.service_s <= 60.0


def test_a_boot_is_assumed_by_what_kind_of_server_it_is() -> None:
    assert boot_prior_s(is_external=False, is_child=False) == 300.0
    assert boot_prior_s(is_external=False, is_child=True) == 5.0
    assert boot_prior_s(is_external=True, is_child=False) == 0.0
