"""List what happened: changes of state, and orders that people gave: ``journal``."""

import sys
from operator import itemgetter
from typing import Any

from ollama_proxy.cli.command_settings import Config, Json, proxy_client, read_settings
from ollama_proxy.cli.console import tell
from ollama_proxy.cli.status_view import as_line
from ollama_proxy.core.access.days import utc_time


def journal(config: Config = None, *, as_json: Json = False) -> None:
    """List the last changes of state and the last orders, newest first."""
    found = proxy_client(read_settings(config)).get("/-/journal")
    if as_json:
        sys.stdout.write(as_line(found) + "\n")
        return
    lines = [(line["at"], transition_words(line)) for line in found["transitions"]]
    lines += [(line["at"], audit_words(line)) for line in found["audit"]]
    for at, words in sorted(lines, key=itemgetter(0), reverse=True):
        tell(f"{utc_time(at)}  {words}")
    if not lines:
        tell("nothing has happened so far")


def transition_words(line: dict[str, Any]) -> str:
    """Return a change of state in one line: ``default/0/fly cold -> starting``."""
    words = f"{line['slot']} {line['before']} -> {line['after']}: {line['event']}"
    if line["launch_id"]:
        words += f" of {line['launch_id']}"
    return f"{words}; {line['fault']}" if line["fault"] else words


def audit_words(line: dict[str, Any]) -> str:
    """Return an order in one line: ``key add laptop, by root from 10.0.0.7``."""
    words = f"{line['action']} {line['target']}".strip()
    if line["caller"] or line["address"]:  # not so of a file that was changed
        words += f", by {line['caller'] or 'anybody'} from {line['address']}"
    return f"{words}: {line['detail']}" if line["detail"] else words
