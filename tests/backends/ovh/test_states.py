"""What each state of an app means for its launch."""

import pytest

from ollama_proxy.backends.base.cloud import Assessment, StateContext
from ollama_proxy.backends.ovh.apps import App, AppSpec, AppStatus, Info, read_apps
from ollama_proxy.backends.ovh.states import assess
from ollama_proxy.base.errors import TransientError

KNOWN = {
    "standby": True,
    "told_to_stop": False,
    "start_not_visible_yet": False,
    "waited_s": 10.0,
    "served": False,
}


def thought(state: str, *, replicas: int | None = None, **known: object) -> Assessment:
    app = App("a", status=AppStatus(state=state, available_replicas=replicas))
    circumstances = StateContext(**{**KNOWN, **known})  # type: ignore[arg-type]  # any field
    return assess(app, circumstances, 900.0)[0]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("QUEUED", Assessment.PENDING),
        ("INITIALIZING", Assessment.PENDING),
        ("SCALING", Assessment.MAYBE_READY),
        ("RUNNING", Assessment.MAYBE_READY),
        ("STANDBY", Assessment.MAYBE_READY),
        ("STOPPING", Assessment.FAILED),
        ("STOPPED", Assessment.GONE),
        ("FAILED", Assessment.FAILED),
        ("ERROR", Assessment.FAILED),
        ("DELETING", Assessment.FAILED),
        ("DELETED", Assessment.GONE),
        ("PAUSED_BY_MOONLIGHT", Assessment.PENDING),
        ("", Assessment.PENDING),
    ],
)
def test_each_state_of_a_kept_app(state: str, expected: Assessment) -> None:
    assert thought(state) is expected


def test_a_stopped_app_of_one_launch_has_to_be_deleted_still() -> None:
    assert thought("STOPPED", standby=False) is Assessment.FAILED


def test_an_app_that_was_just_started_may_still_be_shown_stopped() -> None:
    assert thought("STOPPED", start_not_visible_yet=True) is Assessment.PENDING


def test_an_app_that_was_just_started_may_still_be_shown_failed() -> None:
    assert (
        thought("FAILED", start_not_visible_yet=True, replicas=0) is Assessment.PENDING
    )
    assert (
        thought("FAILED", start_not_visible_yet=True, replicas=1) is Assessment.FAILED
    )


@pytest.mark.parametrize("state", ["QUEUED", "INITIALIZING"])
def test_what_served_and_waits_in_line_again_is_of_no_use(state: str) -> None:
    assert thought(state, served=True, waited_s=9999.0) is Assessment.FAILED


def test_a_failed_app_is_over_once_stopped_and_without_replicas() -> None:
    assert thought("FAILED", told_to_stop=True, replicas=0) is Assessment.GONE
    assert thought("FAILED", told_to_stop=True, replicas=1) is Assessment.FAILED
    assert thought("FAILED", told_to_stop=True, replicas=None) is Assessment.FAILED


def test_waiting_in_line_has_an_end() -> None:
    assert thought("QUEUED", waited_s=899.0) is Assessment.PENDING
    assert thought("QUEUED", waited_s=901.0) is Assessment.NO_CAPACITY


def test_what_served_and_was_scaled_to_zero_is_of_no_use() -> None:
    assert thought("STANDBY", served=True) is Assessment.FAILED


def test_a_failure_is_told_in_the_platforms_words() -> None:
    info = Info("APP_FAILED", "image\n not found")
    app = App("a", status=AppStatus(state="FAILED", info=info))

    assert app.why() == "the app has failed: image not found"


def test_a_list_with_an_app_of_ours_that_cannot_be_read_is_no_list() -> None:
    theirs = {"id": 7, "spec": {}}
    ours = {"id": 7, "spec": {"labels": {"ollama-proxy-managed": "true"}}}

    assert read_apps([theirs]) == []
    with pytest.raises(TransientError, match="can't be read"):
        read_apps([ours])


def test_nulls_are_as_good_as_nothing() -> None:
    raw = {"id": "a", "spec": {"labels": None}, "status": {"url": None, "info": None}}
    (app,) = read_apps([raw])

    assert (app.spec, app.status.url) == (AppSpec(), None)
