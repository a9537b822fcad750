"""Text of others on a terminal: shown, and never obeyed."""

import io
import json
from typing import Any

import pytest
import structlog
from rich.console import Console

from ollama_proxy.base import log
from ollama_proxy.base.terminal_text import shown, shown_json, shown_lines, shown_values
from ollama_proxy.cli.status_view import escape, pull_line, render_status

NASTY = "m\x1b]0;owned\x07\x9b2J\x7f\u202etxt\r\nforged\udce4"
OBEYED = set("\x1b\x07\x9b\x7f\u202e\r\udce4")


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("text", ["llama3.2", "modèle 模型 🦙", "a b"])
def test_a_text_that_is_only_read_is_left_as_it_is(text: str) -> None:
    assert shown(text) == shown_json(text) == shown_lines(text) == text


def test_what_a_terminal_obeys_is_written_out_on_one_line() -> None:
    assert shown(NASTY) == (r"m\x1b]0;owned\x07\x9b2J\x7f\u202etxt\r\nforged\udce4")
    assert shown_lines("a\nb\x1b") == "a\nb\\x1b"


def test_json_says_the_same_without_what_a_terminal_obeys() -> None:
    raw = json.dumps({"model": NASTY}, ensure_ascii=False)

    assert json.loads(shown_json(raw)) == {"model": NASTY}
    assert not OBEYED & set(shown_json(raw))


def test_what_is_in_lists_and_dicts_is_shown_too() -> None:
    assert shown_values({"a": ["\x1b", {"b": ("\x07", 1)}], "c": None}) == {
        "a": ["\\x1b", {"b": ["\\x07", 1]}],
        "c": None,
    }


def test_a_log_on_a_terminal_obeys_neither_a_name_nor_an_error() -> None:
    told = Terminal()
    log.configure("info", told)
    structlog.get_logger().info(log.PULL_ENDED, model=NASTY, error=NASTY)
    structlog.get_logger().error(log.REQUEST_FAILED, exc_info=ValueError(NASTY))
    text = told.getvalue()

    assert "\x1b]0;" not in text  # the colours are structlog's own
    assert not OBEYED - {"\x1b"} & set(text)
    assert "\nforged" not in text  # an exception is logged without its message


def test_a_log_in_json_is_read_by_a_terminal_without_harm() -> None:
    told = io.StringIO()
    log.configure("info", told)
    structlog.get_logger().info(log.PULL_ENDED, model=NASTY.rstrip("\udce4"))

    assert not OBEYED & set(told.getvalue())
    assert json.loads(told.getvalue())["model"] == NASTY.rstrip("\udce4")


def status(**said: Any) -> dict[str, Any]:
    names = ("stage", "detail", "stops_in_s", "error", "progress", "remote_url", "zone")
    known: dict[str, Any] = dict.fromkeys(names)
    known |= {"provisioning_status": "ready", "instance_status": "ready"}
    known |= {"simulated": False, "backend": "static", "in_flight": 0, "waiting": 0}
    known |= {"elapsed_s": 0.0, "eta_s": None}
    return known | said


def test_the_command_line_obeys_nothing_that_the_proxy_tells_of_others() -> None:
    told = io.StringIO()
    console = Console(file=told, highlight=False, soft_wrap=True)
    console.print(
        render_status(status(stage=NASTY, error=NASTY, remote_url=NASTY), "http://x:1")
    )
    line = pull_line({"model": NASTY, "status": NASTY, "progress": None})
    console.print(escape(line))
    console.print(escape("[bold]" + NASTY))

    assert not OBEYED & set(told.getvalue())
    assert "[bold]" in told.getvalue()
