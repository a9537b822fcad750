"""The plug-in that docs/backends.md showed before the modules had packages."""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.former_names import with_former_fields
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet import backend
from ollama_proxy.fleet.backend import BackendContext
from ollama_proxy.store.memory import MemoryNotes

PLUG_IN = """
from ollama_proxy.backend import BackendContext, Observation, Phase, Traits, Upstream


class MyBackend:
    traits = Traits(poll_s=5.0, location="lab")

    def __init__(self, owner_id: str, url: str) -> None:
        self._owner_id, self._url = owner_id, url
        self._running: set[str] = set()

    async def start(self, launch_id: str) -> None:
        self._running.add(launch_id)

    async def inspect(self, launch_id: str) -> Observation:
        if launch_id not in self._running:
            return Observation(Phase.GONE)
        return Observation(Phase.RUNNING, Upstream(self._url))

    async def stop(self, launch_id: str) -> None:
        self._running.discard(launch_id)

    async def owned(self) -> set[str]:
        return set(self._running)

    async def aclose(self) -> None:
        pass


def open_backend(context: BackendContext) -> MyBackend:
    return MyBackend(context.owner_id, str(context.options["url"]))
"""
FORMER = {
    "backend": (
        "Backend",
        "BackendContext",
        "Checkable",
        "Deployable",
        "Keeping",
        "Leased",
        "Observation",
        "Phase",
        "Priced",
        "Prices",
        "Releasing",
        "Renewable",
        "Tidied",
        "Traits",
        "Upstream",
    ),
    "clock": ("Clock", "SystemClock"),
    "errors": (
        "CapacityError",
        "CredentialsError",
        "OutcomeUnknownError",
        "SpecError",
        "TransientError",
    ),
    "link": ("Link", "MARK"),
    "record": ("LaunchId",),
}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget that the former modules were imported: each warns once per process."""
    for name in FORMER:
        monkeypatch.delitem(sys.modules, f"ollama_proxy.{name}", raising=False)


async def test_the_plug_in_of_the_former_page_works_with_one_warning(
    tmp_path: Path,
) -> None:
    names: dict[str, object] = {}
    with pytest.warns(DeprecationWarning, match="ollama_proxy.fleet.backend") as told:
        exec(compile(PLUG_IN, "my_cloud.py", "exec"), names)
    url = "http://10.0.0.7:11434"
    context = BackendContext("o", tmp_path, MemoryNotes(), SystemClock(), {"url": url})

    made = names["open_backend"](context)  # type: ignore[operator]  # as an entry point names it
    await made.start(LaunchId("l1"))

    assert len(told) == 1
    observed = await made.inspect(LaunchId("l1"))
    assert (observed.phase, observed.upstream.url) == (backend.Phase.RUNNING, url)


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module, names in FORMER.items() for name in names],
)
def test_each_name_that_the_former_page_gives_is_found(module: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        former = __import__(f"ollama_proxy.{module}", fromlist=[name])

        assert getattr(former, name) is not None


def test_a_name_that_never_was_is_an_import_error() -> None:
    with pytest.raises(ImportError):
        exec("from ollama_proxy.backend import Nonsense")


FIELDS = {
    "always_on": "externally_managed",
    "stops_with_proxy": "child_process",
    "keeps_models": "persistent_models",
}


@pytest.mark.parametrize(("former", "now"), FIELDS.items())
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_field_is_given_and_read_by_its_former_name(former: str, now: str) -> None:
    traits = backend.Traits(**{former: True}, location="lab")  # type: ignore[arg-type]  # a name of before

    assert getattr(traits, now) is True
    assert getattr(traits, former) is True
    assert traits == backend.Traits(**{now: True}, location="lab")  # type: ignore[arg-type]  # mixed kinds


def test_former_fields_warn_once_for_a_class() -> None:
    @with_former_fields(old="new")
    @dataclass(frozen=True, slots=True)
    class Thing:
        new: int = 0

    with pytest.warns(DeprecationWarning, match="Thing.old is now Thing.new") as told:
        things = [Thing(old=1), Thing(old=2)]  # type: ignore[call-arg]  # a name of before

    assert ([one.new for one in things], len(told)) == ([1, 2], 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_field_by_both_names_is_refused() -> None:
    with pytest.raises(TypeError, match="'child_process' by two names"):
        backend.Traits(stops_with_proxy=True, child_process=True)  # type: ignore[call-arg]  # a name of before
