"""Brackets of JSON are counted, however it is cut up."""

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.ollama.brackets import Brackets

TEXT = st.text(alphabet='{}[]"\\,: \n\u00e9a', max_size=12)
JSON = st.recursive(
    TEXT | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
    ),
    max_leaves=12,
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def counted(parts: list[bytes]) -> Brackets:
    brackets = Brackets()
    for part in parts:
        brackets.add(part)
    return brackets


@given(value=JSON, cuts=st.lists(st.integers(0, 1000), max_size=8))
def test_a_whole_value_is_closed_however_it_is_cut_up(
    value: Any, cuts: list[int]
) -> None:
    data = json.dumps(value, ensure_ascii=False).encode()

    assert counted(pieces(data, cuts)).are_closed


@given(value=JSON, cut=st.integers(0, 1000), cuts=st.lists(st.integers(0, 1000)))
def test_what_is_cut_off_is_open(value: Any, cut: int, cuts: list[int]) -> None:
    data = json.dumps({"a": value}, ensure_ascii=False).encode()
    data = data[: 1 + cut % (len(data) - 1)]

    assert not counted(pieces(data, cuts)).are_closed


@given(value=JSON)
def test_byte_by_byte_is_as_at_once(value: Any) -> None:
    data = json.dumps([value, "\\"], ensure_ascii=False).encode()

    assert counted([bytes([one]) for one in data]).are_closed
