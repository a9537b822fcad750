"""Models in a beat are those that a hub takes, in its bounds."""

from typing import Any

import msgspec
import pytest

from ollama_proxy.core.nodes.beat_models import models_of_entries
from ollama_proxy.node.listed_models import bounded, listed

WHOLE = {
    "name": "tiny:latest",
    "model": "tiny:latest",
    "modified_at": "2026-01-01T00:00:00Z",
    "size": 7,
    "digest": "abc",
    "details": {"family": "llama", "families": None},
}


def test_an_entry_passes_as_ollama_wrote_it() -> None:
    assert bounded(listed([WHOLE])) == [WHOLE]


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": " "},
        {"name": "a\nb"},
        {"name": "a" * 257},
        {"name": None},
        {"size": -1},
        {"size": "7"},
        {"digest": 7},
        {"modified_at": None},
    ],
    ids=str,
)
def test_an_entry_for_which_the_hub_would_refuse_the_beat_is_left_out(
    change: dict[str, Any],
) -> None:
    kept = bounded(listed([WHOLE | change, WHOLE]))

    assert kept == [WHOLE]
    assert list(models_of_entries(msgspec.json.encode(kept))) == ["tiny:latest"]


def test_many_long_entries_are_reduced_and_then_left_out() -> None:
    long = [WHOLE | {"name": f"m{number}", "more": "x" * 900} for number in range(1000)]
    longer = [WHOLE | {"name": f"m{number}" + "ä" * 240} for number in range(1500)]

    reduced, cut = bounded(listed(long)), bounded(listed(longer))

    assert len(reduced) == 1000
    assert reduced[0].keys() == {"name", "model", "digest", "size"}
    assert 500 < len(cut) <= 1000
    assert len(msgspec.json.encode(cut)) < 530_000
