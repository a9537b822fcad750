"""What each state of an app means for its launch."""

import pytest

from ollama_proxy.backends.ovh.apps import App, AppSpec, AppStatus, Info, read_apps
from ollama_proxy.backends.ovh.states import Circumstances, Verdict, verdict
from ollama_proxy.base.errors import TransientError

KNOWN = {
    "keeps": True,
    "told_to_stop": False,
    "is_unshown": False,
    "waited_s": 10.0,
    "queue_timeout_s": 900.0,
    "served": False,
}


def thought(state: str, *, replicas: int | None = None, **known: object) -> Verdict:
    app = App("a", status=AppStatus(state=state, available_replicas=replicas))
    circumstances = Circumstances(**{**KNOWN, **known})  # type: ignore[arg-type]  # any field
    return verdict(app, circumstances)[0]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("QUEUED", Verdict.COMING),
        ("INITIALIZING", Verdict.COMING),
        ("SCALING", Verdict.PERHAPS_SERVING),
        ("RUNNING", Verdict.PERHAPS_SERVING),
        ("STANDBY", Verdict.PERHAPS_SERVING),
        ("STOPPING", Verdict.USELESS),
        ("STOPPED", Verdict.GONE),
        ("FAILED", Verdict.USELESS),
        ("ERROR", Verdict.USELESS),
        ("DELETING", Verdict.USELESS),
        ("DELETED", Verdict.GONE),
        ("PAUSED_BY_MOONLIGHT", Verdict.COMING),
        ("", Verdict.COMING),
    ],
)
def test_each_state_of_a_kept_app(state: str, expected: Verdict) -> None:
    assert thought(state) is expected


def test_a_stopped_app_of_one_launch_has_to_be_deleted_still() -> None:
    assert thought("STOPPED", keeps=False) is Verdict.USELESS


def test_an_app_that_was_just_started_may_still_be_shown_stopped() -> None:
    assert thought("STOPPED", is_unshown=True) is Verdict.COMING


def test_an_app_that_was_just_started_may_still_be_shown_failed() -> None:
    assert thought("FAILED", is_unshown=True, replicas=0) is Verdict.COMING
    assert thought("FAILED", is_unshown=True, replicas=1) is Verdict.USELESS


@pytest.mark.parametrize("state", ["QUEUED", "INITIALIZING"])
def test_what_served_and_waits_in_line_again_is_of_no_use(state: str) -> None:
    assert thought(state, served=True, waited_s=9999.0) is Verdict.USELESS


def test_a_failed_app_is_over_once_stopped_and_without_replicas() -> None:
    assert thought("FAILED", told_to_stop=True, replicas=0) is Verdict.GONE
    assert thought("FAILED", told_to_stop=True, replicas=1) is Verdict.USELESS
    assert thought("FAILED", told_to_stop=True, replicas=None) is Verdict.USELESS


def test_waiting_in_line_has_an_end() -> None:
    assert thought("QUEUED", waited_s=899.0) is Verdict.COMING
    assert thought("QUEUED", waited_s=901.0) is Verdict.WITHOUT_ROOM


def test_what_served_and_was_scaled_to_zero_is_of_no_use() -> None:
    assert thought("STANDBY", served=True) is Verdict.USELESS


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
