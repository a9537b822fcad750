"""Lines of a TOML file."""

import tomllib

import pytest

from ollama_proxy.config.toml_lines import find_lines, line_of

FILE = '''# a comment with [brackets] and key = "x"
hold = "1m"

[pools.big]   # of two
models = [
  "*:70b",  # ] no end
  "llama]3",
]
offers = ["a"]
[pools."my small"]
models = """
[offers.false]
key = 1
"""
env = { "A.B" = 1, C = [1,
2] }
[ offers . vienna ]
zone = 'at-vie-2 # no comment'
env.OLLAMA_DEBUG = "1"
[[backend_options.list]]
a = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("hold",), 2),
        (("pools",), 4),
        (("pools", "big"), 4),
        (("pools", "big", "models"), 5),
        (("pools", "big", "offers"), 9),
        (("pools", "my small"), 10),
        (("pools", "my small", "models"), 11),
        (("pools", "my small", "env"), 15),
        (("offers",), 17),
        (("offers", "vienna", "zone"), 18),
        (("offers", "vienna", "env", "OLLAMA_DEBUG"), 19),
        (("backend_options", "list", "a"), 21),
    ],
)
def test_each_table_and_key_has_its_line(path: tuple[str, ...], line: int) -> None:
    tomllib.loads(FILE)

    assert find_lines(FILE)[path] == line


def test_what_stands_in_an_inline_table_has_the_line_of_its_key() -> None:
    assert line_of(find_lines(FILE), ("pools", "my small", "env", "A.B")) == 15


def test_a_path_that_is_not_there_has_no_line() -> None:
    assert line_of(find_lines(FILE), ("fly",)) is None


@pytest.mark.parametrize("text", ["", "\n\n", "=", "[", "a = [", '"', "[a]\n]\n", "a"])
def test_a_text_that_is_no_toml_ends_the_scan(text: str) -> None:
    assert len(find_lines(text)) <= 1
