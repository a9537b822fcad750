"""Settings, their documentation and what people copy stay in step."""

import functools
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import yaml

from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.base.fields import environment_names
from ollama_proxy.config import docs
from ollama_proxy.config.known_settings import every_setting
from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.lifecycle.diagram import state_diagram
from ollama_proxy.core.lifecycle.record import Stage, State
from ollama_proxy.server.admin.handlers import AdminHandlers
from ollama_proxy.server.admin.pool_orders import PoolOrders
from tests.proxy import running_proxy

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


GROUPS = sorted({name.partition(".")[0] for name in every_setting() if "." in name})


def rows(page: str) -> list[list[str]]:
    """Return the cells of every table row of a page."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in lines
        if line.startswith("| `")
    ]


def variables(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`(\w+)`", cell))


def test_the_settings_page_lists_every_setting_as_it_is() -> None:
    documented = {row[0].strip("`"): row[1:] for row in rows("docs/settings.md")}

    single = {n: f for n, f in every_setting().items() if "." not in n}
    assert list(documented) == list(single)
    for name, field in single.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        expected = [environment_names(field), extra["shown"], field.description]
        env, default, meaning = documented[name]
        assert [variables(env), default, meaning] == expected


def test_the_readme_is_one_screen_and_leaves_the_settings_to_their_page() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    every = {
        name for field in every_setting().values() for name in environment_names(field)
    }

    assert len(text.splitlines()) <= 70
    assert "(docs/settings.md)" in text
    named = set(re.findall(r"`((?:OLLAMA_PROXY|EXOSCALE|FLY|OVH)_\w+)", text))
    assert named <= every, named - every


def test_the_states_are_drawn_from_the_table() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")

    assert f"```mermaid\n{state_diagram()}\n```\n" in text, "run `make docs`"


FILE = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|toml|ya?ml|json|sh))`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    """Of the repository, seen from its top or from the package."""
    for name in FILE.findall(page.read_text("utf-8")):
        if not name.startswith("./"):
            places = [ROOT / name, ROOT / "ollama_proxy" / name]
            assert any(place.exists() for place in places), name


CLASS = re.compile(r"`(?:\w+\.)*([A-Z][a-z]\w+)(?:[.(][^`]*)?`")
FOR_AUTHORS = [
    *(ROOT / "docs/adr").glob("*.md"),
    *(ROOT / f"docs/{name}.md" for name in ("architecture", "backends", "development")),
]


@functools.cache
def words_of_the_source() -> frozenset[str]:
    folders = (ROOT / "ollama_proxy", ROOT / "backends", ROOT / "tests")
    files = (path for folder in folders for path in folder.rglob("*.py"))
    return frozenset(
        word for path in files for word in re.findall(r"\w+", path.read_text("utf-8"))
    )


@pytest.mark.parametrize("page", FOR_AUTHORS, ids=lambda page: page.name)
def test_every_class_that_is_named_exists(page: Path) -> None:
    assert set(CLASS.findall(page.read_text("utf-8"))) <= words_of_the_source()


def test_the_architecture_names_the_files_of_its_journeys() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")

    assert len(set(FILE.findall(text))) >= 40


@pytest.mark.parametrize("group", GROUPS)
def test_the_page_of_a_backend_lists_its_settings_as_they_are(group: str) -> None:
    table_rows = [row for row in rows(f"docs/{group}.md") if len(row) == 4]
    documented = {row[0].strip("`"): row[1:] for row in table_rows}
    for name, field in every_setting().items():
        table, _, key = name.partition(".")
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        if table == group:
            env, default, meaning = documented.pop(key)
            expected = [environment_names(field), extra["shown"], field.description]
            assert [variables(env), default, meaning] == expected

    assert not documented


@pytest.mark.parametrize("page", docs.pages(ROOT), ids=lambda page: page.name)
def test_the_tables_of_settings_are_fresh(page: Path) -> None:
    text = page.read_text("utf-8")

    assert docs.with_tables(text) == text, "run `make docs`"


def test_a_table_that_is_old_is_replaced_and_nothing_else() -> None:
    old = "before\n\n<!-- make docs: fly -->\n| a |\n|---|\n| b |\n\nafter\n"
    fresh = docs.with_tables(old)

    assert fresh.startswith("before\n\n<!-- make docs: fly -->\n| in the file |")
    assert fresh.endswith("|\n\nafter\n")
    assert "| a |" not in fresh
    assert "| `app` | `FLY_APP` | – | the app; it" in fresh


def test_a_table_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="'flly' is no table of settings"):
        docs.with_tables("<!-- make docs: flly -->\n")


def test_every_backend_with_a_table_has_its_page() -> None:
    for group in GROUPS:
        text = (ROOT / f"docs/{group}.md").read_text("utf-8")
        assert f"<!-- make docs: {group} -->\n" in text


def test_the_example_file_has_every_setting_and_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "config.example.toml").read_text()
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    settings = "\n".join(line for line in lines if re.match(r"\w+ = |\[", line))
    path = tmp_path / "all.toml"
    path.write_text(settings.replace("/usr/local/bin/ollama", sys.executable))
    values = tomllib.loads(settings)

    known = every_setting()
    assert list(values) == list(dict.fromkeys(n.partition(".")[0] for n in known))
    assert load_settings({}, _without_upstream(path)).models


def _without_upstream(path: Path) -> Path:
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if "upstream_" not in line))
    return path


def test_every_example_default_is_the_default(tmp_path: Path) -> None:
    text = (ROOT / "config.example.toml").read_text()
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    single = itertools.takewhile(lambda line: not line.startswith("["), lines)
    given = [line for line in single if re.match(r"\w+ = ", line)]
    examples = {
        "backend",
        "default_backend",
        "upstream_url",
        "upstream_token",
        "upstream_headers",
        "upstream_ca",
        "models",
        "state_dir",
        "ollama_bin",
        "origins",
        "max_lifetime",
        "idle_ignores",
        "allowed_hosts",
        "keys_file",
        "key",
        "tls_cert",
        "tls_key",
        "trusted_proxies",
        "metrics_listen",
        "labels",
    }
    defaults = [line for line in given if line.partition(" ")[0] not in examples]
    path = tmp_path / "defaults.toml"
    path.write_text("\n".join(defaults))

    assert load_settings({}, path) == load_settings({})


async def test_the_status_page_explains_every_key(tmp_path: Path) -> None:
    text = (ROOT / "docs/status.md").read_text("utf-8")
    async with running_proxy(tmp_path) as proxy:
        status = await proxy.status()

    for key in status:
        assert f"`{key}`" in text, key
    for word in [*State, *Stage]:
        assert f"`{word.value}`" in text, word


NOT_IN_COMPOSE = {
    "OLLAMA_HOST",  # the image's: a user's own is a client's, that names this proxy
    "OLLAMA_PROXY_STATE_DIR",  # the image's volume
    "OLLAMA_PROXY_DEFAULT_BACKEND",
    "OLLAMA_PROXY_OLLAMA_BIN",  # the image has neither program
    "OLLAMA_PROXY_SIMULATOR",
    "OVHAI_BIN",
    "OLLAMA_PROXY_KEY",  # of commands, which find the order token in the container
}


def test_the_compose_file_hands_every_variable_on_and_sets_none_itself() -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    environment = yaml.safe_load(text)["services"]["ollama-proxy"]["environment"]
    assert [name for name in environment if text.count(f"\n      {name}: ") > 1] == []
    every = {
        name for field in every_setting().values() for name in environment_names(field)
    }

    assert set(environment) == every - NOT_IN_COMPOSE
    assert all(value == f"${{{name}:-}}" for name, value in environment.items())
    assert load_settings(dict.fromkeys(environment, "")) == load_settings({})


OLD_VARIABLES = {
    "EXOSCALE_API_KEY": "EXOold",
    "EXOSCALE_API_SECRET": "oldsecret",
    "EXOSCALE_ZONE": "ch-gva-2",
    "EXOSCALE_INSTANCE_TYPE": "a5000.medium",
    "EXOSCALE_TEMPLATE": "Linux Ubuntu 22.04 LTS 64-bit",
    "EXOSCALE_DISK_SIZE": "50",
    "EXOSCALE_IDLE_TIMEOUT": "900",
    "OLLAMA_MODEL": "granite3.1-dense:8b",
}
"""What the container before this product was run with, each by ``-e``."""


@pytest.mark.parametrize("by_compose", [False, True], ids=["docker run", "compose"])
def test_each_variable_of_the_old_container_is_honoured(by_compose: bool) -> None:
    env = dict(OLD_VARIABLES)
    if by_compose:
        text = (ROOT / "compose.yaml").read_text("utf-8")
        service = yaml.safe_load(text)["services"]["ollama-proxy"]
        env = {name: OLD_VARIABLES.get(name, "") for name in service["environment"]}
    settings = load_settings(env)
    exoscale = settings.of(ExoscaleSettings)

    assert settings.selection.backend == "exoscale"
    assert exoscale.api_key == "EXOold"
    assert exoscale.has_credentials
    assert (exoscale.zone, exoscale.instance_type) == ("ch-gva-2", "a5000.medium")
    assert exoscale.template == "Linux Ubuntu 22.04 LTS 64-bit"
    assert exoscale.disk_size == 50
    assert settings.idle_timeout == 900
    assert settings.models == ("granite3.1-dense:8b",)


OLD_ROUTES = """
/api/generate /api/chat /api/embeddings /api/embed /api/tags /api/show /api/pull
/api/push /api/create /api/delete /api/copy /api/ps /api/version /status
"""
OLD_KEYS = """
service provisioning_status instance_status remote_url zone instance_type ollama_model
idle_timeout error
"""


async def test_those_who_come_from_the_old_container_find_all_of_it_explained(
    tmp_path: Path,
) -> None:
    page = (ROOT / "docs/exoscale.md").read_text("utf-8")
    section = page.partition("## Coming from")[2].partition("\n## ")[0]
    async with running_proxy(tmp_path) as proxy:
        status = await proxy.status()

    for name in [*OLD_VARIABLES, *OLD_ROUTES.split(), *OLD_KEYS.split()]:
        assert f"`{name}`" in section, name
    assert set(OLD_KEYS.split()) <= set(status)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_each_decision_has_a_number_of_its_own() -> None:
    pages = sorted((ROOT / "docs/adr").glob("*.md"))
    numbers = [int(page.name.partition("-")[0]) for page in pages]

    assert numbers == list(range(1, len(pages) + 1))
    for number, page in zip(numbers, pages, strict=True):
        assert page.read_text("utf-8").startswith(f"# {number}. "), page.name


def test_the_readme_has_the_commands_and_make_and_ci_know_them() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")

    for task in ("run", "test"):
        assert f"    make {task} " in readme
    assert "`make check`" in readme
    for task in ("run", "test", "check"):
        assert f"\n{task}: " in makefile
    *_, command = (ROOT / ".ci/run").read_text().splitlines()
    assert command == "make --jobs=3 check image-test"


def test_make_run_takes_no_cloud_from_credentials_alone() -> None:
    """By ``env``, and not a shell, which would take make's signals for the proxy."""
    done = subprocess.run(
        ["make", "-n", "run", "OLLAMA_MODEL=llama3.2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    recipe = "env OLLAMA_PROXY_DEFAULT_BACKEND=local .venv/bin/ollama-proxy serve"
    assert recipe in done.stdout.splitlines()


def test_the_plug_in_of_the_docs_keeps_the_contract(tmp_path: Path) -> None:
    text = (ROOT / "docs/backends.md").read_text("utf-8")
    for block in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL):
        (tmp_path / block[0]).write_text(block[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", ".", "test_my_cloud.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert re.search(r"8 passed, 1 skipped", done.stdout)


def test_what_the_port_exposes_is_told_endpoint_by_endpoint() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    routes = [
        *AdminHandlers.routes(create_autospec(AdminHandlers, instance=True)),
        *PoolOrders.routes(create_autospec(PoolOrders, instance=True)),
    ]

    assert "/-/wake" in {route.path for route in routes}
    for route in routes:
        assert f"`{route.method} {route.path.replace(':.*', '')}`" in text
