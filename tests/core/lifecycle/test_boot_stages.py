"""The stages of a launch: what the proxy sees, and what an instance tells."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.lifecycle.boot_stages import (
    GUEST_STEPS,
    OTHER,
    StageSpan,
    Timeline,
    read_spans,
    stage_name,
    told_spans,
)
from ollama_proxy.core.lifecycle.record import LaunchId, Progress, Record, Stage, State

LAUNCH = LaunchId("l1")
COLD = Record()


def starting(
    stage: Stage = Stage.CREATING, step: str = "", launch_id: LaunchId = LAUNCH
) -> Record:
    return Record(
        state=State.STARTING,
        launch_id=launch_id,
        woken_at=100.0,
        progress=Progress(stage, step=step),
    )


def seen(*changes: tuple[float, Record]) -> Timeline:
    timeline, before = Timeline(), COLD
    for now, after in changes:
        timeline.see(before, after, now)
        before = after
    return timeline


def ready(record: Record) -> Record:
    return replace(record, state=State.READY)


@pytest.mark.parametrize(
    ("progress", "name"),
    [
        (Progress(Stage.CREATING), "creating"),
        (Progress(Stage.BOOTING), "booting"),
        (Progress(Stage.BOOTING, step="booting"), "booting"),
        (Progress(Stage.BOOTING, step="driver"), "driver"),
        (Progress(Stage.BOOTING, step="x" * 1000), OTHER),
        (Progress(Stage.LOADING, step="driver"), "loading"),
    ],
)
def test_a_stage_has_a_name_of_a_closed_set(progress: Progress, name: str) -> None:
    assert stage_name(progress) == name


def test_stages_follow_one_another_and_add_up() -> None:
    timeline = seen(
        (100.0, starting()),
        (130.0, starting(Stage.BOOTING)),
        (160.0, starting(Stage.BOOTING, "driver")),
        (250.0, starting(Stage.LOADING)),
        (270.0, ready(starting(Stage.LOADING))),
    )

    assert timeline.spans(999.0) == [
        StageSpan("creating", 0.0, 30.0),
        StageSpan("booting", 30.0, 30.0),
        StageSpan("driver", 60.0, 90.0),
        StageSpan("loading", 150.0, 20.0),
    ]
    assert timeline.is_whole


def test_the_stage_under_way_has_taken_what_it_has_so_far() -> None:
    timeline = seen((100.0, starting()), (130.0, starting(Stage.BOOTING)))

    assert timeline.spans(141.0)[-1] == StageSpan("booting", 30.0, 11.0)
    assert timeline.running_s(141.0) == 11.0


def test_a_stage_that_comes_again_is_one_stage() -> None:
    timeline = seen(
        (100.0, starting()),
        (110.0, starting(Stage.PULLING)),
        (120.0, starting(Stage.CONNECTING)),
        (125.0, starting(Stage.PULLING)),
        (140.0, ready(starting(Stage.PULLING))),
    )

    assert [(one.name, one.seconds) for one in timeline.spans(0.0)] == [
        ("creating", 10.0),
        ("pulling", 25.0),
        ("connecting", 5.0),
    ]


def test_the_next_launch_begins_anew() -> None:
    timeline = seen((100.0, starting()), (110.0, COLD))
    timeline.guest = read_spans("driver 1\nready 3")
    timeline.see(COLD, starting(launch_id=LaunchId("l2")), 100.0)

    assert timeline.launch_id == "l2"
    assert timeline.guest == ()
    assert timeline.spans(100.0) == [StageSpan("creating", 0.0, 0.0)]


def test_a_launch_that_was_taken_up_in_the_middle_is_not_whole() -> None:
    timeline = Timeline()
    timeline.see(starting(Stage.BOOTING), starting(Stage.LOADING), 130.0)

    assert not timeline.is_whole
    assert timeline.spans(135.0) == [StageSpan("loading", 30.0, 5.0)]


def test_a_clock_that_was_set_back_makes_no_length_negative() -> None:
    timeline = seen((100.0, starting()), (40.0, starting(Stage.BOOTING)))

    assert all(one.seconds >= 0 <= one.begun_s for one in timeline.spans(10.0))


def test_stages_side_by_side_each_have_their_own_length() -> None:
    said = """booting 0
guard 31
guard.end 50
ollama 51
driver 51
ollama.end 120
model 120
driver.end 170
model.end 200
ready 205
"""
    assert read_spans(said) == (
        StageSpan("booting", 0.0, 31.0),
        StageSpan("guard", 31.0, 19.0),
        StageSpan("ollama", 51.0, 69.0),
        StageSpan("driver", 51.0, 119.0),
        StageSpan("model", 120.0, 80.0),
    )


def test_a_stage_without_an_end_lasts_until_the_next_begins() -> None:
    assert read_spans("driver 10\nollama 30\nready 45") == (
        StageSpan("driver", 10.0, 20.0),
        StageSpan("ollama", 30.0, 15.0),
    )


@pytest.mark.parametrize(
    "said",
    [
        "",
        "driver",
        "driver 10",
        "driver -5\nready 9",
        "driver 1e9\nready 9",
        "driver ٣\nready 9",
        "driver 99999999999999999999\nready 9",
        "evil{stage} 10\nready 20",
        "failed:driver 10\nready 20",
        "<html><body>404</body></html>",
        "\x00\xff",
    ],
)
def test_what_can_not_be_read_is_left_out(said: str) -> None:
    assert read_spans(said) == ()


def test_an_end_before_its_beginning_is_no_negative_length() -> None:
    assert read_spans("driver 50\ndriver.end 10") == (StageSpan("driver", 50.0, 0.0),)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*GUEST_STEPS, "driver.end", "model.end", "ready", "x"]),
            st.integers(-5, 10**9),
        )
    )
)
def test_whatever_is_said_the_names_are_known_and_the_lengths_sane(
    marks: list[tuple[str, int]],
) -> None:
    spans = read_spans("\n".join(f"{name} {at}" for name, at in marks))

    assert {one.name for one in spans} <= set(GUEST_STEPS)
    assert len({one.name for one in spans}) == len(spans)
    assert all(one.seconds >= 0 for one in spans)


def test_the_instance_knows_better_how_long_its_own_stages_took() -> None:
    told = told_spans(
        [StageSpan("booting", 0, 40), StageSpan("driver", 40, 90)],
        [StageSpan("driver", 51, 95), StageSpan("model", 60, 80)],
    )

    assert told == {"booting": 40, "driver": 95, "model": 80}
