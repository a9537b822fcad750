"""The last lines of a step that failed: readable, and the one that says why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.backends.boot_report import readable, telling_line
from ollama_proxy.base.terminal_text import shown_lines

APT = """Reading package lists...
Building dependency tree...
E: Unable to locate package linux-modules-nvidia-570-server-6.8.0-1
Reading state information...
Run 'apt-get --help' for more"""


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (APT, "E: Unable to locate package linux-modules-nvidia-570-server-6.8.0-1"),
        ("a\ncurl: (6) Could not resolve host: nvidia.github.io\nb", None),
        (
            "modprobe: FATAL: Module nvidia not found in directory /lib/modules/6\n",
            None,
        ),
        ("No space left on device\nsee the log", None),
        ("one\ntwo\n\n", "two"),
        ("", ""),
        ("\n \n", ""),
        ("E: first\nE: second", "E: second"),
    ],
)
def test_the_line_that_says_why_is_found(report: str, line: str | None) -> None:
    told = telling_line(report)

    assert told == line or (line is None and told and told in report)
    if line is None:
        assert told != report.strip().splitlines()[-1] or "\n" not in report.strip()


def test_the_line_that_says_why_is_short_and_has_no_secret() -> None:
    told = telling_line("E: " + "x" * 5000)

    assert len(told) == 200
    assert telling_line("E: GET https://u:pw@host/ failed") == (
        "E: GET https://***@host/ failed"
    )


def test_bytes_of_any_kind_become_lines() -> None:
    assert readable(b"10%\r20%\r\n\x1b[31mred\x1b[0m\n\n\xff\xfe\0") == (
        "10%\n20%\n\\x1b[31mred\\x1b[0m\n\ufffd\ufffd\\x00"
    )


def test_a_token_of_the_launch_is_taken_out_as_it_stands() -> None:
    assert readable(b"asked with abcdefgh123", {"abcdefgh123"}) == "asked with ***"


@given(st.binary(max_size=2000))
def test_whatever_a_guest_says_is_told(said: bytes) -> None:
    report = readable(said)

    assert report == shown_lines(report)
    assert "\n" not in telling_line(report)
