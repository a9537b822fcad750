"""How nodes are listed for people."""

from ollama_proxy.cli.nodes_view import models_words, nodes_lines
from tests.fakes.nodes import listed_node


def test_each_node_has_a_line_below_the_titles() -> None:
    lines = nodes_lines(
        [
            listed_node("attic", active_jobs=2),
            listed_node("cellar", status="degraded", failure_count=3, draining=True),
        ]
    )

    assert lines[0].split() == [
        *("NODE", "STATUS", "MODELS", "CPU", "MEM", "JOBS", "FAILED", "SEEN")
    ]
    assert lines[1].split()[:7] == [
        *("attic", "online", "llama3:latest", "25%", "50%", "2", "0")
    ]
    assert "degraded, draining" in lines[2]


def test_what_is_wrong_with_a_node_follows() -> None:
    lines = nodes_lines([listed_node(problem="its Ollama does not answer")])

    assert lines[-1] == "box: its Ollama does not answer"


def test_what_a_node_pulls_follows_too() -> None:
    pulling = {"name": "big\x1b:latest", "completed": 1, "total": 4}
    begun = {"name": "big", "completed": 0, "total": 0}
    nodes = [listed_node("a", pulling=pulling), listed_node("b", pulling=begun)]

    assert nodes_lines(nodes)[-2:] == [r"a: pulls big\x1b:latest, 25%", "b: pulls big"]


def test_a_long_list_of_models_is_cut_and_counted() -> None:
    assert models_words([]) == "-"
    assert models_words(["a", "b", "c", "d", "e"]) == "a, b, c +2"
    assert len(models_words(["x" * 100])) == 40


def test_names_can_not_command_the_terminal() -> None:
    lines = nodes_lines([listed_node("a\x1b[2Jb", models=["m\x1b[2J"])])

    assert "\x1b" not in "".join(lines)
