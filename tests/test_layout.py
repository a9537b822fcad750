"""The shape of the repository: who reads the environment."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "settings.py",
    "cli.py",
    "main.py",
    "local.py",
    "__main__.py",
    "way_out.py",
    "healthcheck.py",
}


@pytest.mark.parametrize("folder", ["ollama_proxy", "backends"])
def test_only_settings_and_children_read_the_environment(folder: str) -> None:
    found = [
        path
        for path in (ROOT / folder).rglob("*.py")
        if "os.environ" in path.read_text("utf-8")
    ]

    assert [path for path in found if path.name not in ALLOWED] == []
