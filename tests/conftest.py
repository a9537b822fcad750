"""What every test shares: a quiet log that does not hide defects."""

import gc
import importlib
import pkgutil
import signal
import sys
from collections.abc import Generator, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings
from structlog.testing import LogCapture

import ollama_proxy
from ollama_proxy.base import log
from tests.simulation.mortal import Crash

for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    # Under `nohup`, and in the background of a script, processes would inherit that.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

# Each worker collects all tests, a million objects that stay. The collector went
# through them nine times for nothing, which was a quarter of that time.
gc.disable()


def pytest_collection_finish() -> None:
    """Have the collector leave alone what was collected, and look at the rest."""
    gc.freeze()
    gc.enable()


_NOT_IMPORTED = {"__main__", "contract"}
"""Modules that run something when they are imported, or whose asserts are rewritten."""

# That a busy machine makes examples slowly is no fault of a test.
settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")

_REPLAYS = {
    "test_boot_durations",
    "test_clock_histories",
    "test_crashes",
    "test_faults",
    "test_former_hub",
    "test_former_peers",
    "test_gateways",
    "test_hostile_beats",
    "test_hostile_memory",
    "test_hostile_times",
    "test_hostile_tunnels",
    "test_house_histories",
    "test_house_overflow",
    "test_joiner",
    "test_key_limit_processes",
    "test_killed_commands",
    "test_killed_replacements",
    "test_killed_starts",
    "test_killed_sweeps",
    "test_launch_limit",
    "test_limit_histories",
    "test_lying_lists",
    "test_may_not_wake",
    "test_moved",
    "test_named_settings",
    "test_node_index",
    "test_overflow",
    "test_owner_sweep",
    "test_phases",
    "test_pool_plan",
    "test_queue_histories",
    "test_real_agents",
    "test_scale",
    "test_slots",
    "test_turn_histories",
    "test_whose_beats",
}
_READERS = {"test_docs", "test_layout", "test_plain_english"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Exclude tests from coverage that run the same lines hundreds of times.

    Coverage would double their time and add nothing: each of these lines is covered by
    a test of its own, or reported as uncovered. Single tests have the mark themselves.
    Those that read our files run nothing of them, and those that measure processor time
    would measure its tracer too.
    """
    for item in items:
        is_replay = item.path.parent.name == "simulation"
        is_replay |= item.path.stem in _REPLAYS | _READERS
        is_timed = "no_collector" in getattr(item, "fixturenames", ())
        if is_replay or is_timed:
            item.add_marker("no_cover")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Have coverage see how the product is imported, and not how tests are collected.

    Its tracer doubled the time of the collection, which each worker does for itself.
    """
    if (tracer := sys.gettrace()) is None:
        return (yield)
    for module in pkgutil.walk_packages(ollama_proxy.__path__, "ollama_proxy."):
        if module.name.rpartition(".")[2] not in _NOT_IMPORTED:
            importlib.import_module(module.name)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Have no tracer in a test that is excluded from coverage.

    In a worker of xdist, pytest-cov 7.1 starts two measurements, one over the other. It
    pauses the upper one, and the lower one goes on.
    """
    tracer = sys.gettrace()
    if tracer is None or item.get_closest_marker("no_cover") is None:
        return (yield)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


_DEFECTS = {log.TASK_CRASHED, log.ILLEGAL_TRANSITION}


@pytest.fixture(autouse=True)
def errors_logged() -> Iterator[LogCapture]:
    """Collect warnings and errors; one that tells of a defect fails the test."""
    capture = LogCapture()
    structlog.configure(
        processors=[capture],
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        cache_logger_on_first_use=False,
    )
    yield capture
    structlog.reset_defaults()
    log.REQUESTS.configure(None, is_wanted=True)
    defects = [
        entry
        for entry in capture.entries
        if entry["event"] in _DEFECTS and not isinstance(entry.get("exc_info"), Crash)
    ]
    assert not defects, defects


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Keep the collector, and coverage, away from a test that measures its time.

    With the objects of thousands of tests, one full collection takes 0.4 s: there is
    none before the test either.
    """
    gc.disable()
    yield
    gc.enable()
