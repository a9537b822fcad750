"""Only the aiohttp server knows aiohttp's server."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ollama_proxy"


def names_aiohttps_server(path: Path) -> bool:
    """Tell whether a module imports ``aiohttp.web``, or a part of it."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            imported |= {f"{node.module}.{name.name}" for name in node.names}
    return any(name.startswith("aiohttp.web") for name in imported)


@pytest.mark.parametrize(
    "package", ["core", "fleet", "serving", "store", "upstream", "server/fast"]
)
def test_no_other_package_imports_it(package: str) -> None:
    found = sorted((PACKAGE / package).rglob("*.py"))

    assert found
    assert [path for path in found if names_aiohttps_server(path)] == []
