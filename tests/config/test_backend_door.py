"""A plug-in's cloud is loaded by its entry point, with settings of its own."""

import re
import sys
import types
from collections.abc import Callable
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, SecretStr

from ollama_proxy.base.clock import SystemClock
from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.fields import BackendSettings, setting
from ollama_proxy.cli.doctor import examine
from ollama_proxy.cli.launch_plan import launch_plan
from ollama_proxy.composition import open_backend
from ollama_proxy.config.loader import load_settings
from ollama_proxy.fleet import backend_loader
from ollama_proxy.fleet.backend import Backend, BackendContext, Finding
from ollama_proxy.fleet.backend_plugin import BackendPlugin, Choice
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.config.rig import faults, toml
from tests.fakes.cloud import FakeCloud


class TinySettings(BackendSettings):
    credentials = (("token",),)
    pairs = (("token", "project"),)
    foreign = frozenset({"TINYCLOUD_TOKN"})

    token: SecretStr | None = setting(None, "TINYCLOUD_TOKEN", text="its token")
    project: str | None = setting(None, "TINYCLOUD_PROJECT", text="its project")
    size: Annotated[int, Field(ge=1, le=8)] = setting(
        1, "TINYCLOUD_SIZE", text="how large an instance is"
    )
    price_per_hour: float | None = setting(
        None, "TINYCLOUD_PRICE", text="what an instance costs"
    )

    def assumptions(self) -> list[str]:
        return [] if "size" in self.model_fields_set else ["TINYCLOUD_SIZE is 1"]


class TinyBackend(FakeCloud):
    def __init__(self, settings: TinySettings) -> None:
        super().__init__()
        self.settings = settings

    async def check(self) -> list[Finding]:
        return [Finding("tiny", ok=True, detail=f"size {self.settings.size}")]


def open_tiny(context: BackendContext) -> Backend:
    return TinyBackend(context.settings_of(TinySettings))


def tiny_faults(settings: TinySettings, choice: Choice) -> list[str]:
    if len(choice.models) <= settings.size:
        return []
    return [
        f"TINYCLOUD_SIZE: {settings.size} is too small for {len(choice.models)} models;"
        f" write {len(choice.models)}"
    ]


TINY = BackendPlugin("tiny", TinySettings, open_tiny, faults=tiny_faults)
KEYS = {"TINYCLOUD_TOKEN": "t0ken", "TINYCLOUD_PROJECT": "p"}
NAMED = {"OLLAMA_PROXY_BACKEND": "tiny"}

Register = Callable[..., None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Return what installs plug-ins, as a package's entry points do."""

    def install(**plugins: object) -> None:
        module = types.ModuleType("tiny_cloud")
        for name, plugin in plugins.items():
            setattr(module, name.replace("-", "_"), plugin)
        monkeypatch.setitem(sys.modules, "tiny_cloud", module)
        points = [
            metadata.EntryPoint(
                name, f"tiny_cloud:{name.replace('-', '_')}", backend_loader.GROUP
            )
            for name in plugins
        ]
        points += [metadata.EntryPoint("gone", "no_such:x", backend_loader.GROUP)]
        monkeypatch.setattr(backend_loader, "installed_plug_ins", lambda: points)

    return install


@pytest.fixture
def tiny(register: Register) -> None:
    register(tiny=TINY)


@pytest.mark.usefixtures("tiny")
def test_its_variables_and_its_table_are_read(tmp_path: Path) -> None:
    path = toml(tmp_path, '[tiny]\nproject = "file"\nsize = 2')
    env = KEYS | {"TINYCLOUD_SIZE": "3"}
    settings = load_settings(env | NAMED, path).of(TinySettings)

    assert (settings.project, settings.size) == ("p", 3)
    assert load_settings(NAMED | {"TINYCLOUD_TOKEN": "t"}, path).of_backend == (
        TinySettings.model_validate({"token": "t", "project": "file", "size": 2})
    )


@pytest.mark.usefixtures("tiny")
def test_its_credentials_alone_mean_it() -> None:
    selection = load_settings({"TINYCLOUD_TOKEN": "t", "TINYCLOUD_PROJECT": "p"})

    assert selection.selection.backend == "tiny"
    assert "its credentials are in TINYCLOUD_TOKEN" in selection.selection.reason


@pytest.mark.usefixtures("tiny")
def test_its_credentials_and_those_of_another_cloud_are_for_a_person() -> None:
    (fault,) = faults({**KEYS, "FLY_API_TOKEN": "t", "FLY_APP": "llm"})

    assert "there are settings for fly and tiny; name the one" in fault


@pytest.mark.usefixtures("tiny")
def test_with_a_default_its_settings_are_named_as_not_used() -> None:
    settings = load_settings({**KEYS, "OLLAMA_PROXY_DEFAULT_BACKEND": "local"})

    assert settings.selection.backend == "local"
    assert "TINYCLOUD_TOKEN" in settings.selection.notice
    assert "OLLAMA_PROXY_BACKEND=tiny" in settings.selection.notice


@pytest.mark.usefixtures("tiny")
def test_its_own_rule_for_being_meant_counts(register: Register) -> None:
    def by_size(_kind: object, given: dict[str, object]) -> list[str]:
        return ["size"] if "size" in given else []

    register(
        tiny=BackendPlugin("tiny", TinySettings, open_tiny, is_meant=by_size)  # type: ignore[arg-type]  # a dict is a Mapping
    )

    assert load_settings({"TINYCLOUD_SIZE": "2"}).selection.backend == "tiny"


WRONG = [
    ({"TINYCLOUD_SIZE": "9"}, "TINYCLOUD_SIZE: Input should be less than or equal"),
    ({"TINYCLOUD_SIZE": "much"}, "'much'"),
    (
        {"OLLAMA_MODEL": "a,b"},
        "TINYCLOUD_SIZE: 1 is too small for 2 models; write 2",
    ),
    ({"TINYCLOUD_PROJECT": ""}, "TINYCLOUD_PROJECT: is not set, and TINYCLOUD_TOKEN"),
    (
        {"TINYCLOUD_SZIE": "2"},
        "TINYCLOUD_SZIE: unknown setting; did you mean TINYCLOUD_SIZE?",
    ),
]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("named", [{}, NAMED], ids=["found", "named"])
@pytest.mark.parametrize(("env", "told"), WRONG)
def test_what_is_wrong_with_its_settings_is_told_at_start(
    named: dict[str, str], env: dict[str, str], told: str
) -> None:
    (fault,) = faults({**KEYS, **named, **env})

    assert told in fault


@pytest.mark.usefixtures("tiny")
def test_a_variable_of_its_clouds_own_programs_is_no_misspelt_setting() -> None:
    assert load_settings({**KEYS, "TINYCLOUD_TOKN": "x"}).selection.notice == ""


@pytest.mark.usefixtures("tiny")
def test_a_wrong_name_in_its_table_is_a_fault_without_the_value(tmp_path: Path) -> None:
    path = toml(tmp_path, '[tiny]\ntokn = "s3cret"')
    (fault,) = faults(KEYS | NAMED, path)

    assert fault == f"{path}: tiny: Extra inputs are not permitted"


@pytest.mark.usefixtures("tiny")
def test_its_settings_are_not_validated_where_another_is_named() -> None:
    env = {"OLLAMA_PROXY_BACKEND": "local", "TINYCLOUD_SIZE": "9"}

    assert load_settings(env).of(TinySettings).size == 1


@pytest.mark.usefixtures("tiny")
async def test_check_examines_it_and_tells_what_would_be_started(
    tmp_path: Path,
) -> None:
    env = {
        **KEYS,
        "OLLAMA_HOST": "127.0.0.1:0",
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path),
    }
    found = {one.subject: one for one in await examine(load_settings(env))}

    assert found["tiny"].detail == "size 1"
    assert "TINYCLOUD_SIZE is 1" in found["what is started"].detail
    assert "(TINYCLOUD_PRICE is not set)" in found["what is started"].detail
    assert "t0ken" not in repr(found)


def opened(folder: Path, env: dict[str, str]) -> Backend:
    settings = load_settings({"OLLAMA_PROXY_STATE_DIR": str(folder), **env})
    with closing(SqliteStore(settings.state_dir)) as store:
        return open_backend(settings, store, SystemClock())


def test_a_mere_function_is_a_backend_as_well(
    register: Register, tmp_path: Path
) -> None:
    seen: list[object] = []

    def build(context: BackendContext) -> Backend:
        seen.append(context.options["url"])
        return FakeCloud()

    register(plain=build)
    path = toml(tmp_path, 'backend = "plain"\n[backend_options]\nurl = "http://a"')
    settings = load_settings({"OLLAMA_PROXY_STATE_DIR": str(tmp_path)}, path)
    with closing(SqliteStore(settings.state_dir)) as store:
        open_backend(settings, store, SystemClock())

    assert seen == ["http://a"]


class NamelessSettings(BackendSettings):
    """Settings that stand only in the file: they have no variables."""

    pairs = (("user", "password"),)

    user: str | None = setting(None, text="who logs in")
    password: str | None = setting(None, text="with what")
    price_per_hour: float | None = setting(None, text="what an instance costs")


def test_a_setting_without_a_variable_is_told_by_its_name_in_the_file(
    register: Register, tmp_path: Path
) -> None:
    register(tiny=BackendPlugin("tiny", NamelessSettings, lambda _: FakeCloud()))
    half = toml(tmp_path, '[tiny]\nuser = "me"')
    settings = load_settings(NAMED)

    assert launch_plan(settings, FakeCloud()).price == (
        "price unknown (price_per_hour is not set)"
    )
    assert faults(NAMED, half) == [
        f"tiny.password: is not set, and {half}: tiny is; one needs the other: set"
        " both, or neither"
    ]


def test_a_field_that_is_declared_as_no_setting_is_told(register: Register) -> None:
    class Plain(BackendSettings):
        size: int = 1

    register(tiny=BackendPlugin("tiny", Plain, open_tiny))

    assert faults(NAMED) == [
        "OLLAMA_PROXY_BACKEND: the backend 'tiny' can't be loaded from tiny_cloud:tiny"
        " (TypeError: its settings have a field that `setting` did not declare); mend"
        " or remove it"
    ]


def test_a_broken_plug_in_stops_nobody_but_who_wants_it(
    register: Register, tmp_path: Path
) -> None:
    register(tiny=TINY)
    told = (
        "OLLAMA_PROXY_BACKEND: the backend 'gone' can't be loaded from no_such:x"
        " (ModuleNotFoundError: No module named 'no_such'); mend or remove it"
    )
    table = toml(tmp_path, "[gone]\nsize = 1")

    assert load_settings({}).selection.backend == "local"
    assert faults({"OLLAMA_PROXY_BACKEND": "gone"}) == [told]
    assert faults({}, table) == [told]
    assert faults({"OLLAMA_PROXY_BACKEND": "gone"}, table) == [told]


class Thief(BackendSettings):
    zone: str = setting("", "EXOSCALE_ZONE", text="another cloud's")


class Usurper(BackendSettings):
    hold: str = setting("", "OLLAMA_PROXY_HOLD", text="the proxy's")


@pytest.mark.parametrize(
    ("name", "plugin", "told"),
    [
        ("thief", BackendPlugin("thief", Thief, open_tiny), "EXOSCALE_ZONE, which is"),
        ("usurper", BackendPlugin("usurper", Usurper, open_tiny), "OLLAMA_PROXY_HOLD"),
        ("models", BackendPlugin("models", TinySettings, open_tiny), "'models' is a"),
        ("other", TINY, "calls itself 'tiny'"),
    ],
)
def test_a_plug_in_that_takes_what_belongs_to_another_is_refused(
    register: Register, name: str, plugin: object, told: str
) -> None:
    register(**{name: plugin})
    load_settings({"EXOSCALE_ZONE": "ch-gva-2", "OLLAMA_PROXY_BACKEND": "local"})

    assert told in faults({"OLLAMA_PROXY_BACKEND": name})[0]


def test_a_built_in_is_not_replaced_by_a_plug_in_of_its_name(
    register: Register, tmp_path: Path
) -> None:
    register(local=open_tiny)

    assert not isinstance(opened(tmp_path, {}), TinyBackend)


def test_a_backend_that_nobody_knows_is_told_with_those_that_are(
    register: Register, tmp_path: Path
) -> None:
    register(tiny=TINY)
    with pytest.raises(StartupError, match=r"no backend 'tini'; known: .*, tiny"):
        opened(tmp_path, {"OLLAMA_PROXY_BACKEND": "tini"})


def of_the_page() -> object:
    """Return the ``PLUGIN`` of docs/backends.md."""
    page = Path(__file__).parents[2] / "docs/backends.md"
    found = re.search(
        r"```python\n# my_cloud\.py\n(.*?)```", page.read_text(), re.DOTALL
    )
    assert found is not None
    module = types.ModuleType("my_cloud")
    sys.modules["my_cloud"] = module
    try:
        exec(compile(found[1], "my_cloud.py", "exec"), module.__dict__)
    finally:
        del sys.modules["my_cloud"]
    return module.__dict__["PLUGIN"]


def test_the_plug_in_of_the_docs_comes_in_by_the_door(
    register: Register, tmp_path: Path
) -> None:
    register(**{"my-cloud": of_the_page()})
    path = toml(tmp_path, '[my-cloud]\nurl = "http://10.0.0.7:11434"\ngpus = 2')
    state = {"OLLAMA_PROXY_STATE_DIR": str(tmp_path)}
    settings = load_settings({"MY_CLOUD_TOKEN": "t", **state}, path)
    with closing(SqliteStore(settings.state_dir)) as store:
        backend = open_backend(settings, store, SystemClock())

    assert settings.selection.backend == "my-cloud"
    assert "its table is there" in settings.selection.reason
    assert vars(backend)["_url"] == "http://10.0.0.7:11434"
    assert faults({"MY_CLOUD_TOKEN": "t"}) == [
        "MY_CLOUD_URL: it is not set; write http://host:11434"
    ]
    assert faults({"MY_CLOUD_USER": "u", "OLLAMA_PROXY_BACKEND": "my-cloud"}) == [
        "MY_CLOUD_PASSWORD: is not set, and MY_CLOUD_USER is; one needs the other: set"
        " both, or neither",
        "MY_CLOUD_URL: it is not set; write http://host:11434",
    ]
    assert load_settings({"MY_CLOUD_CONFIG": "/etc/x", **state}).selection.notice == ""
