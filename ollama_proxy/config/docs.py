"""Write the tables of settings into the pages that have one: ``make docs``.

Each table follows a line ``<!-- make docs: TABLE -->`` and is replaced. TABLE is
``settings`` (all but clouds), a backend's name, ``offers``, ``pools``, or ``states``
(the diagram of an instance's states).
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ollama_proxy.base.fields import environment_names, shown_default
from ollama_proxy.config.known_settings import every_setting
from ollama_proxy.config.pool_tables import OfferTable, PoolTable
from ollama_proxy.core.lifecycle.diagram import state_diagram
from ollama_proxy.fleet.backend_loader import Backends, built_in_backends

_TABLE = re.compile(
    r"(?m)^<!-- make docs: ([\w-]+) -->\n(?:\|.*\n|```mermaid\n(?:.*\n)*?```\n)*"
)
_STATES = "states"
_SETTINGS = "settings"
_OF_FILE: Mapping[str, type[BaseModel]] = {"offers": OfferTable, "pools": PoolTable}


def with_tables(page: str) -> str:
    """Return a page with each of its tables as the settings are now."""

    def render(match: re.Match[str]) -> str:
        lines = _table(match[1])
        return f"<!-- make docs: {match[1]} -->\n" + "".join(f"{ln}\n" for ln in lines)

    return _TABLE.sub(render, page)


def pages(root: Path) -> list[Path]:
    """Return the pages of the repository that may have a table."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def _table(name: str) -> Iterator[str]:
    """Yield the lines of a table. Raises `ValueError` for a name that has no table."""
    if name == _STATES:
        yield from ("```mermaid", *state_diagram().splitlines(), "```")
        return
    if name in _OF_FILE:
        yield "| in the file | default | meaning |"
        yield "|---|---|---|"
        for key, field in _OF_FILE[name].model_fields.items():
            yield _row(f"`{key}`", shown_default(field), field.description)
        return
    every = every_setting(Backends(built_in_backends()))
    single = {key: field for key, field in every.items() if "." not in key}
    prefix = f"{name}."
    own = {
        key.removeprefix(prefix): field
        for key, field in every.items()
        if key.startswith(prefix)
    }
    if not (shown := single if name == _SETTINGS else own):
        raise ValueError(f"{name!r} is no table of settings")
    yield "| in the file | in the environment | default | meaning |"
    yield "|---|---|---|---|"
    for key, field in shown.items():
        default = shown_default(field)
        yield _row(f"`{key}`", _names(field) or "–", default, field.description)


def _row(*cells: str | None) -> str:
    return f"| {' | '.join(cell or '' for cell in cells)} |"


def _names(field: FieldInfo) -> str:
    return ", ".join(f"`{name}`" for name in environment_names(field))


def main(root: Path) -> list[Path]:
    """Bring every page up to date; return those that were not."""
    changed = []
    for page in pages(root):
        text = page.read_text("utf-8")
        if (fresh := with_tables(text)) != text:
            page.write_text(fresh, "utf-8")
            changed.append(page)
    return changed


if __name__ == "__main__":
    for path in main(Path.cwd()):
        sys.stdout.write(f"{path}\n")
