"""What the page tells of a body of `/status`."""

from typing import Any

import pytest

from ollama_proxy.server.page.view import MachineView, Viewer, page_view
from tests.server.page.bodies import instance, offer, pool, status


def machine(body: dict[str, Any]) -> MachineView:
    return page_view(body, Viewer()).pools[0].machines[0]


def test_a_pool_tells_what_waits_what_is_in_flight_and_what_is_wanted() -> None:
    told = page_view(status(), Viewer()).pools[0]

    assert told.figures == (
        ("waiting", 3),
        ("in flight", 2),
        ("ready", 1),
        ("wanted", 1),
    )
    assert told.plan == ("nothing waits",)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "for 1 min, stops in 3 min 20 s"),
        ({"stops_in_s": None}, "for 1 min, stays"),
        ({"idle_for_s": None, "stops_in_s": None}, "in use"),
        ({"in_flight": 1}, "in use"),
        ({"state": "draining", "idle_for_s": None}, ""),
    ],
)
def test_a_ready_machine_tells_when_it_stops(
    fields: dict[str, Any], words: str
) -> None:
    assert machine(status(pool(instance(**fields)))).idle == words


def test_a_launch_tells_its_stage_how_far_it_is_and_what_is_left() -> None:
    starting = instance(
        state="starting",
        stage="pulling",
        detail="llama3.2",
        progress=0.657,
        eta_s=95.0,
        idle_for_s=None,
    )
    told = machine(status(pool(starting)))

    assert told.stage == "pulling llama3.2, about 1 min 35 s left"
    assert told.bar is not None
    assert (told.bar.value, told.bar.words) == (0.657, "65 %")
    assert told.bar.label == "launch of default/0/fast"
    assert told.requests == told.idle == ""


def test_a_launch_without_an_estimate_says_so() -> None:
    starting = instance(state="starting", stage="creating", progress=0.0)
    assert machine(status(pool(starting))).stage == "creating, no estimate yet"


@pytest.mark.parametrize(
    ("of_offer", "of_proxy", "words"),
    [
        (1.25, 9.0, "1.25 USD per hour"),
        (None, 0.5, "0.50 USD per hour"),
        (None, None, ""),
        (0.0, None, "free"),
    ],
)
def test_the_price_is_told_where_it_is_known(
    of_offer: float | None, of_proxy: float | None, words: str
) -> None:
    offers = [offer(price_per_hour=of_offer)]
    body = status(pool(instance(), offers=offers), price={"per_hour": of_proxy})
    assert machine(body).price == words


def test_the_price_of_the_first_machine_is_not_that_of_others() -> None:
    offers = [offer(price_per_hour=None)]
    both = pool(instance(), instance(), offers=offers)
    assert machine(status(both, price={"per_hour": 9.0})).price == ""


def test_an_offer_that_is_not_tried_is_named_with_its_reason() -> None:
    shut = offer(state="passed_over", reason="no room", ends_in_s=90.0)
    off = offer(name="slow", state="off", reason="the key is refused")
    told = page_view(status(pool(offers=[shut, off, offer()])), Viewer()).pools[0]

    assert [(one.about, one.words) for one in told.offers] == [
        ("fast is passed over for 1 min 30 s", "no room"),
        ("slow is off", "the key is refused"),
    ]


def test_an_error_stands_above_and_not_again_in_its_machine() -> None:
    broken = pool(instance(error="no room"), instance(error="no disk"))
    told = page_view(status(broken, error="no room"), Viewer())

    assert [one.words for one in told.notices] == ["no room"]
    assert [one.error for one in told.pools[0].machines] == ["", "no disk"]


def test_everything_that_somebody_should_look_at_is_named() -> None:
    body = status(
        error="no GPU is free",
        lockout={"message": "3 launches failed", "ends_in_s": 61.0},
        gpu={"problem": "the GPU is not used"},
        keys_file={"problem": "keys.toml is gone"},
        tls={"problem": "the certificate is over"},
        access={"needs_key": False, "warning": "no key is needed"},
        lost_models=[{"model": "m", "reason": "it was not kept"}],
        others=[
            {
                "name": "vm",
                "state": "running",
                "owner": "o",
                "price_per_hour": 0.5,
                "command": "ollama-proxy sweep",
            }
        ],
        launches_unserved=2,
        launch_limit=5,
        simulated=True,
        detail="a certificate is over soon",
    )
    told = page_view(body, Viewer()).notices

    assert [one.about for one in told] == [
        "Error",
        "No launches",
        "GPU",
        "Keys file",
        "TLS",
        "Access",
        "Launches",
        "Lost model",
        "Another's",
        "Simulator",
        "Connection",
    ]
    assert [one.command for one in told if one.command] == [
        "ollama-proxy wake",
        "ollama-proxy sweep",
    ]
    assert "(for 1 min 1 s)" in told[1].words


def test_a_lockout_that_the_error_tells_is_not_told_twice() -> None:
    lockout = {"message": "launches end here", "ends_in_s": None}
    told = page_view(status(error="x: launches end here", lockout=lockout), Viewer())
    assert [one.about for one in told.notices] == ["Error"]


def test_requests_are_there_for_those_alone_who_may_see_them() -> None:
    asked = {
        "client": "10.0.0.7",
        "key": "ann",
        "agent": "curl/8",
        "route": "/api/chat",
        "model": None,
        "pool": "default",
        "since_s": 3.2,
        "state": "relaying",
    }
    assert page_view(status(), Viewer()).requests is None
    told = page_view(status(active=[asked]), Viewer(is_admin=True)).requests
    assert told is not None
    assert (told[0].sender, told[0].since, told[0].model) == (
        "ann at 10.0.0.7",
        "3 s",
        "",
    )


def test_what_a_reader_could_not_see_is_shown() -> None:
    body = status(error="a\x1b[31m\u202eb\ud800", report="one\ntwo\x07\nthree")
    told = page_view(body, Viewer())

    assert told.notices[0].words == "a\\x1b[31m\\u202eb\\ud800"
    assert told.report == "one\ntwo\\x07\nthree"


def test_what_is_kept_and_stopped_is_told_with_its_price() -> None:
    kept = {"per_hour": 1.0, "parked": 2, "parked_per_hour": 0.03}
    (told,) = page_view(status(price=kept), Viewer()).notices
    assert told.words == (
        "2 stopped machines are kept for the next launch, 0.03 per hour"
    )
