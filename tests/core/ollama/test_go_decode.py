"""Values are put into typed requests as Go does it, with Go's errors."""

from typing import Any, ClassVar

import pytest

from ollama_proxy.core.ollama.go_decode import UnmarshalError, tree_of, unmarshal
from ollama_proxy.core.ollama.go_json import Number, read_value
from ollama_proxy.core.ollama.go_types import GoStruct
from ollama_proxy.core.ollama.ollama_requests import ChatRequest, GenerateRequest


class Inner(GoStruct):
    GO_TYPE: ClassVar = "api.Inner"
    a: int = 0
    b: list[str] | None = None


class Outer(GoStruct):
    GO_TYPE: ClassVar = "api.Outer"
    name: str = ""
    inner: Inner | None = None
    many: list[Inner] | None = None
    by_name: dict[str, int] | None = None
    anything: Any = None
    flag: bool = False


def read(text: str, shape: Any = Outer) -> Any:
    return unmarshal(read_value(text.encode()), shape)


def test_null_clears_a_pointer_and_leaves_a_value() -> None:
    got = read('{"name":"x","name":null,"inner":{"a":1},"inner":null,"flag":null}')

    assert (got.name, got.inner, got.flag) == ("x", None, False)


def test_a_second_object_is_merged_into_the_first() -> None:
    got = read(
        '{"inner":{"a":1},"INNER":{"b":["x"]},"by_name":{"x":1},"By_Name":{"y":2}}'
    )

    assert got.inner == Inner(1, ["x"])
    assert got.by_name == {"x": 1, "y": 2}


def test_the_elements_of_a_second_array_are_merged_into_those_of_the_first() -> None:
    got = read('{"many":[{"a":1},{"a":2}],"many":[{"b":[]}]}')

    assert got.many == [Inner(1, [])]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5", "number into Go value of type api.Outer"),
        ('"x"', "string into Go value of type api.Outer"),
        (
            '{"name":true,"flag":1}',
            "bool into Go struct field Outer.name of type string",
        ),
        ('{"inner":[]}', "array into Go struct field Outer.inner of type api.Inner"),
        (
            '{"inner":{"a":1.5}}',
            "number 1.5 into Go struct field Inner.inner.a of type int",
        ),
        (
            '{"inner":{"a":9223372036854775808}}',
            "number 9223372036854775808 into Go struct field Inner.inner.a of type int",
        ),
        (
            '{"many":[{"b":[5]}]}',
            "number into Go struct field Inner.many.b of type string",
        ),
        ('{"many":{}}', "object into Go struct field Outer.many of type []api.Inner"),
        (
            '{"by_name":{"x":""}}',
            "string into Go struct field Outer.by_name of type int",
        ),
        (
            '{"anything":[{"x":1e999}]}',
            "number 1e999 into Go struct field Outer.anything of type float64",
        ),
    ],
)
def test_the_first_wrong_type_is_told_in_gos_words(text: str, words: str) -> None:
    with pytest.raises(UnmarshalError) as raised:
        read(text)

    assert str(raised.value) == f"json: cannot unmarshal {words}"


def test_bytes_may_be_given_as_numbers() -> None:
    got = read('{"model":"m","images":[[0,255,null],"aGk=",null]}', GenerateRequest)

    assert got.images == [b"\x00\xff\x00", b"aGk=", None]
    with pytest.raises(UnmarshalError, match=r"number 256 into .* of type uint8"):
        read('{"images":[[256]]}', GenerateRequest)


def test_an_error_of_a_type_that_reads_itself_comes_before_earlier_ones() -> None:
    with pytest.raises(UnmarshalError, match='time: invalid duration "soon"'):
        read('{"model":5,"keep_alive":"soon"}', GenerateRequest)


def test_a_wrong_type_inside_a_message_is_placed_in_the_request() -> None:
    with pytest.raises(UnmarshalError, match=r"ChatRequest\.messages\.content of type"):
        read('{"model":5,"messages":[{"content":5}]}', ChatRequest)


def test_a_plain_value_becomes_what_would_have_been_read() -> None:
    plain = {"b": [1, 2.5, True, None], "a": "x"}

    assert tree_of(plain, is_sorted=True) == [
        ("a", "x"),
        ("b", [Number("1"), Number("2.5"), True, None]),
    ]
