"""Labels: which nodes an offer has."""

import pytest

from ollama_proxy.core.nodes.labels import Labels, parse_labels


@pytest.mark.parametrize(
    ("wanted", "has", "matches"),
    [
        ({}, {}, True),
        ({"gpu": "a100"}, {"gpu": "a100", "site": "home"}, True),
        ({"gpu": "a100"}, {"gpu": "A100"}, False),
        ({"gpu": "a*"}, {"gpu": "a100"}, True),
        ({"gpu": "*"}, {"gpu": ""}, True),
        ({"gpu": "*"}, {}, False),
        ({"gpu": "a100", "site": "home"}, {"gpu": "a100"}, False),
        ("gpu=a100, site=home*", {"gpu": "a100", "site": "home2"}, True),
        ("gpu=", {"gpu": ""}, True),
        ({"fast": True, "slots": 4}, {"fast": "true", "slots": "4"}, True),
        (Labels((("gpu", "x"),)), {"gpu": "x"}, True),
    ],
)
def test_a_node_needs_every_label(
    wanted: object, has: dict[str, str], matches: bool
) -> None:
    assert parse_labels(wanted).matches(has) is matches


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("gpu", "'gpu' has no value; write NAME=VALUE"),
        (["gpu"], "these are no labels"),
        ({"a b": "x"}, "'a b' is no name of a label"),
        ({"gpu": "x\ny"}, "the label 'gpu' has no text on one line"),
        ({"gpu": ["x"]}, "the label 'gpu' has no text on one line"),
        ({f"l{n}": "x" for n in range(33)}, "33 labels are too many"),
    ],
)
def test_what_is_no_label_is_refused_in_words(wanted: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_labels(wanted)


def test_labels_are_shown_as_they_are_written() -> None:
    assert str(parse_labels("site=home*,gpu=a100")) == "gpu=a100, site=home*"
