"""Read the last lines of a failed step of a boot, as its machine kept them. Pure."""

import re
from collections.abc import Collection

from ollama_proxy.base.terminal_text import shown_lines
from ollama_proxy.fleet.reports import masked, without

_LINE = 200
_TELLING = re.compile(
    r"^E: |\b(?:error|fatal|failed|fails|failure|cannot|unable|denied|no space)\b"
    r"|could ?n[o']t|not found",
    re.IGNORECASE,
)
"""Words in a line with a cause: of apt, curl, docker, modprobe and others."""


def readable(said: bytes, secrets: Collection[str] = ()) -> str:
    """Return a report as text without ``secrets``, whatever bytes it contains.

    Text that overwrites a line, such as a progress bar, becomes a line of its own.
    """
    text = said.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.rstrip() for line in text.expandtabs().split("\n")]
    return without(secrets, shown_lines("\n".join(line for line in lines if line)))


def telling_line(report: str) -> str:
    """Return the line of a report that most likely names the cause; "" if it has none.

    The last line about an error: earlier attempts may have had errors of their own. It
    is masked, because it becomes part of a sentence that is not searched for secrets.
    """
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    if not lines:
        return ""
    line = masked((telling or lines)[-1][: 4 * _LINE])
    return line if len(line) <= _LINE else line[: _LINE - 1] + "…"
