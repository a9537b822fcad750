"""The shape of the repository: which modules read the environment or start tasks."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("ollama_proxy", "backends")
READERS = {
    "ollama_proxy/__main__.py",  # a process begins here
    "ollama_proxy/cli/command_settings.py",
    "ollama_proxy/simulator/__main__.py",
    "ollama_proxy/composition/backend.py",  # hands it to the backend
    "ollama_proxy/config/settings.py",  # where the state folder is by default
    "backends/local.py",  # the child inherits it
    "backends/way_out.py",  # proxies and authorities, as every program reads them
}
NAMES = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}


def modules() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from (ROOT / folder).rglob("*.py")


def reads_environment(source: str) -> bool:
    """Tell whether a module uses ``os.environ`` or its like, however it is imported."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in NAMES:
                return True
            case ast.ImportFrom(module="os", names=names):
                if any(one.name in NAMES for one in names):
                    return True
            case ast.Import(names=names):
                if any(
                    one.name == "os" and one.asname not in {None, "os"} for one in names
                ):
                    return True
    return False


def test_only_the_edges_read_the_environment() -> None:
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in modules()
        if reads_environment(path.read_text("utf-8"))
    }

    assert readers == READERS


@pytest.mark.parametrize(
    "source",
    [
        "import os\ndef f():\n    return os.environ['A']",
        "import os\nX = os.getenv('A')",
        "from os import environ as e\nX = e['A']",
        "import os as system\nX = system.environ",
        "class C:\n    def f(self):\n        import os\n        return os.environb",
    ],
)
def test_a_read_of_the_environment_is_seen_however_it_is_written(source: str) -> None:
    assert reads_environment(source)
    assert not reads_environment("import os\nX = os.getpid()  # not os.environ")


def test_the_walk_sees_the_folders_of_clouds_and_everything_else() -> None:
    seen = {path.relative_to(ROOT).as_posix() for path in modules()}

    assert {
        "backends/exoscale/api.py",
        "backends/ovh/cli.py",
        "backends/fly/plugin.py",
        "ollama_proxy/server/fast/handler.py",
    } <= seen


STARTERS = {"create_task", "ensure_future"}


def test_tasks_are_started_in_one_place() -> None:
    """`base/tasks.py` starts them: each has an owner then. Ruff sees only some ways."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules()
        if path.name != "tasks.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute | ast.Name)
        and (node.attr if isinstance(node, ast.Attribute) else node.id) in STARTERS
    ]

    assert found == []


CONSTANT = re.compile(r"(?:.*\.)?_?[A-Z][A-Z0-9_]+")


def patches_constant(node: ast.AST) -> bool:
    """Tell whether a call patches a constant of a module, by object or by path."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    if node.func.attr != "setattr":
        return False
    names = [one.value for one in node.args[:2] if isinstance(one, ast.Constant)]
    return any(isinstance(name, str) and CONSTANT.fullmatch(name) for name in names)


def test_no_test_patches_a_constant_of_a_module() -> None:
    """A `Timing`, or an argument, is passed in: a constant is everybody's."""
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if patches_constant(node)
    }

    assert found == set()
