"""Backends by name: ours and everybody's through the same door."""

from importlib import metadata
from pathlib import Path

import pytest

from ollama_proxy.backends.static import StaticBackend
from ollama_proxy.backends.static_settings import StaticSettings
from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.fleet import backend_loader
from ollama_proxy.fleet.backend import BackendContext
from ollama_proxy.store.memory import MemoryNotes
from tests.fakes.cloud import FakeCloud


def open_fake(_context: BackendContext) -> FakeCloud:
    return FakeCloud()


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint(
        name="scaleway",
        value="tests.fleet.test_backend_loader:open_fake",
        group=backend_loader.GROUP,
    )
    monkeypatch.setattr(backend_loader, "installed_plug_ins", lambda: [point])


@pytest.mark.usefixtures("plug_in")
def test_a_plug_in_is_found_by_its_entry_point(tmp_path: Path) -> None:
    factory = backend_loader.load_backend("scaleway")

    assert isinstance(
        factory(BackendContext("o", tmp_path, MemoryNotes(), SystemClock())), FakeCloud
    )
    assert sorted(backend_loader.find_backends().plugins) == [
        "exoscale",
        "fly",
        "hub",
        "local",
        "ovh",
        "scaleway",
        "static",
    ]


def test_a_built_in_needs_no_entry_point(tmp_path: Path) -> None:
    factory = backend_loader.load_backend("static")
    settings = StaticSettings.model_validate({"upstream_url": "http://h:1"})
    context = BackendContext(
        "o", tmp_path, MemoryNotes(), SystemClock(), {"static": settings}
    )

    assert isinstance(factory(context), StaticBackend)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        SettingsError, match="known: exoscale, fly, hub, local, ovh, static"
    ):
        backend_loader.load_backend("exo")
