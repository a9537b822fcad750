"""Show ``/status`` on a terminal."""

import errno
import json
import select
import time
from typing import Any, TextIO, cast

from rich import markup
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ollama_proxy.base.errors import ProxyError
from ollama_proxy.base.terminal_text import shown, shown_json, shown_lines, shown_values
from ollama_proxy.cli.active_lines import active_lines
from ollama_proxy.cli.admin_client import ProxyClient
from ollama_proxy.cli.pools_view import add_pool, pool_line, tells_more

_REFRESH_S = 0.5
_WITH_PROBLEMS = {"gpu": "GPU", "keys_file": "keys file", "tls": "TLS"}
_COLOURS = {"ready": "green", "provisioning": "yellow", "error": "red", "idle": "blue"}


def render_status(status: dict[str, Any], url: str) -> RenderableType:
    """Return a status as a small table, with a progress bar during a launch.

    ``url``: the address of the proxy. Several pools have a summary each, and there is
    none of the whole: the fields outside of ``pools`` are about the first pool.
    """
    status = cast("dict[str, Any]", shown_values(status))
    table = Table.grid(padding=(0, 2))
    table.add_row("proxy", Text(url))
    pools = status.get("pools") or ()
    has_several = len(pools) > 1
    if not has_several:
        _add_summary(table, status)
    for line in active_lines(status.get("active") or ()):
        table.add_row("asks now", Text(line))
    for part, title in _WITH_PROBLEMS.items():
        if problem := (status.get(part) or {}).get("problem"):
            table.add_row(title, Text(str(problem), style="yellow"))
    if driver := status.get("driver"):
        table.add_row("driver", Text(str(driver)))
    for other in status.get("others") or ():
        table.add_row("another's", Text(_other(other), style="yellow"))
    if tells_more(pools):
        for pool in pools:
            add_pool(table, pool)
    if status["error"]:
        table.add_row("error", Text(str(status["error"]), style="red"))
    if status["progress"] is None or has_several:
        return table
    return Group(table, ProgressBar(total=1.0, completed=status["progress"], width=60))


def _add_summary(table: Table, status: dict[str, Any]) -> None:
    """Add the rows that tell of the only pool: its state, backend and requests."""
    state = str(status["provisioning_status"])
    table.add_row("status", Text(_state(status), style=_COLOURS.get(state, "")))
    table.add_row("backend", Text(_backend(status)))
    if reason := status.get("backend_reason"):  # missing in older proxies
        table.add_row("chosen", Text(f"because {reason}"))
    if (access := status.get("access")) and access["warning"]:
        table.add_row("access", Text(f"no key is needed at {access['listen']}"))
    if (hub := status.get("hub")) and hub["warning"]:
        table.add_row("nodes", Text("they register without a key", style="yellow"))
    if status["stage"]:
        words = f"{status['stage']} {status['detail'] or ''}".strip()
        table.add_row("stage", Text(f"{words} ({_times(status)})"))
    table.add_row(
        "requests", f"{status['in_flight']} in flight, {status['waiting']} waiting"
    )
    if status["stops_in_s"] is not None:
        table.add_row("stops in", f"{status['stops_in_s']:.0f} s without a request")
    if status.get("launches_unserved") and status.get("launch_limit"):
        table.add_row("launches", _launches(status))


def _state(status: dict[str, Any]) -> str:
    simulated = ", simulated" if status["simulated"] else ""
    return f"{status['provisioning_status']} ({status['instance_status']}{simulated})"


def _backend(status: dict[str, Any]) -> str:
    where = status["remote_url"] or status["zone"] or ""
    return f"{status['backend']} {where}".strip()


def _launches(status: dict[str, Any]) -> str:
    """Return how many launches of the last hour are left to chance."""
    count, limit = status["launches_unserved"], status["launch_limit"]
    return f"{count} in the last hour without a request served, of {limit} at most"


def _other(other: dict[str, Any]) -> str:
    """Return what another deployment has, in words."""
    per_hour = other["price_per_hour"]
    cost = "price unknown" if per_hour is None else f"{per_hour:.4g} per hour"
    return f"{other['name']} ({other['state']}), owner {other['owner']}, {cost}"


def _times(status: dict[str, Any]) -> str:
    eta_s = status["eta_s"]
    left = "no estimate yet" if eta_s is None else f"about {eta_s:.0f} s left"
    return f"{status['elapsed_s']:.0f} s so far, {left}"


def escape(text: str) -> str:
    """Return a text for rich to print: neither it nor a terminal obeys any of it."""
    return markup.escape(shown_lines(text))


def pull_line(pull: dict[str, Any]) -> str:
    """Return one of ``pulls`` in words: ``llama3.2  pulling 6a0746a1ec1a  42 %``."""
    words = [pull["model"], pull["status"]]
    if pull["progress"] is not None:
        words.append(f"{pull['progress']:.0%}")
    return shown("  ".join(word for word in words if word))


def status_line(status: dict[str, Any]) -> str:
    """Return the state on one line that changes only when the state does.

    Without running seconds, and with progress in steps of 10 %.
    """
    words = [_state(status)]
    if status["stage"]:
        tenths = int((status["progress"] or 0.0) * 10)
        stage = f"{status['stage']} {status['detail'] or ''}".strip()
        words.append(f"{stage}, {tenths * 10} %")
    if len(pools := status.get("pools") or ()) > 1:
        words = [pool_line(pool) for pool in pools]
    else:
        words.append(f"{status['in_flight']} in flight, {status['waiting']} waiting")
    if status["error"]:
        words.append(f"error: {status['error']}")
    return shown("  ".join(words))


def watch_status(client: ProxyClient, console: Console) -> None:
    """Show the status live until interrupted."""
    with Live(console=console, refresh_per_second=4) as live:
        try:
            while True:
                live.update(_once(client))
                time.sleep(_REFRESH_S)
        except KeyboardInterrupt:
            return


def _once(client: ProxyClient) -> RenderableType:
    try:
        return render_status(client.status(), client.url)
    except ProxyError as error:
        return Text(shown(str(error)), style="red")


def watch_lines(client: ProxyClient, out: TextIO, *, as_json: bool) -> None:
    """Write a line at every change, until interrupted or the reader is gone.

    The line is the time and `status_line`, or with ``as_json`` the whole status.
    """
    last = ""
    try:
        while True:
            line, body = _look(client)
            if line != last:
                last = line
                told = as_line(body) if as_json else f"{_time_of_day()}  {line}"
                out.write(f"{told}\n")
                out.flush()
            if not is_read(out, _REFRESH_S):
                return
    except KeyboardInterrupt:
        return
    except OSError as error:
        if error.errno != errno.EPIPE:  # EPIPE: the reader has left
            raise


def _look(client: ProxyClient) -> tuple[str, dict[str, Any]]:
    """Return the state as a line, and as the object of `status --json`."""
    try:
        status = client.status()
    except ProxyError as error:
        return shown(str(error)), {"error": str(error)}
    return status_line(status), status


def as_line(body: dict[str, Any]) -> str:
    """Return JSON on one line, with nothing in it that a terminal obeys."""
    return shown_json(json.dumps(body, ensure_ascii=False))


def _time_of_day() -> str:
    return time.strftime("%H:%M:%S")


def is_read(out: TextIO, wait_s: float) -> bool:
    """Wait, and tell whether the output still has a reader.

    A closed pipe is noticed at once: ``status --watch | head -1`` ends.
    """
    try:
        looking = select.poll()
        looking.register(out.fileno(), 0)
        return not looking.poll(wait_s * 1000)
    except (AttributeError, OSError, ValueError):  # no such call, or no descriptor
        time.sleep(wait_s)
        return True
