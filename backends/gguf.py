"""Read the head of a GGUF file: the description of its model before the weights.

The format is that of llama.cpp (``gguf.md``), read with the limits of Ollama's own
reader (``fs/gguf/gguf.go``). A file that is broken or too long is treated as empty.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_MAGIC: Final = b"GGUF"
_FIRST_BYTES = 256 * 1024
_MOST_BYTES = 64 * 1024 * 1024
_MOST_ITEMS = 2_000_000
_MOST_DIMENSIONS = 4
_FORMATS = ("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d")
_STRING, _ARRAY = 8, 9
_READERS = {
    kind: struct.Struct(f"<{code}") for kind, code in enumerate(_FORMATS) if code
}
_FLOAT = 6
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_TENSOR_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0",
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K",
    16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 39: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """Describes one tensor of the file."""

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """Holds the description of a model; lists with anything in them are None."""

    values: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[Tensor, ...] = ()

    @property
    def architecture(self) -> str:
        """Return the kind of model: ``llama``, say."""
        return str(self.values.get("general.architecture", ""))

    @property
    def parameter_count(self) -> int:
        """Return how many numbers the tensors hold."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    def number(self, key: str) -> int:
        """Return a whole number of the architecture; 0 if there is none."""
        value = self.of_architecture(key)
        return value if isinstance(value, int) else 0

    def of_architecture(self, key: str) -> Any:
        """Return the value of a key of the architecture: ``context_length``, say."""
        return self.values.get(f"{self.architecture}.{key}")


def read_head(path: Path, *, whole: bool) -> Head | None:
    """Return the description in a file; None if it is broken or can't be read.

    If not ``whole``, only the keys before the tokenizer, whose lists are long.
    """
    for size in (_FIRST_BYTES, _MOST_BYTES):
        try:
            if not path.is_file():  # opening a pipe would wait for its writer
                return None
            with path.open("rb") as file:
                data = file.read(size)
        except OSError:
            return None
        try:
            return _Reader(data).head(whole=whole)
        except (struct.error, IndexError):  # longer: read more of it
            if len(data) < size:
                return None
        except ValueError:
            return None
    return None


class _Reader:
    """Reads a head from its first bytes; raises `struct.error` at their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._items_left = _MOST_ITEMS

    def head(self, *, whole: bool) -> Head:
        """Return the whole description; raises `ValueError` if it is no head."""
        magic, version = self._data[:4], _U32.unpack_from(self._data, 4)[0]
        if magic != _MAGIC or version not in {2, 3}:
            raise ValueError("it is no GGUF file that can be read")
        self._at = 8
        tensor_count, value_count = self._number(_U64), self._number(_U64)
        values: dict[str, Any] = {}
        for _ in range(self._checked(value_count)):
            key = self._string()
            if not whole and key.startswith("tokenizer.") and values:
                return Head(values)
            values[key] = self._value(self._number(_U32))
        if not whole:
            return Head(values)
        tensors = [self._tensor() for _ in range(self._checked(tensor_count))]
        return Head(values, tuple(tensors))

    def _checked(self, count: int) -> int:
        self._items_left -= count
        if self._items_left < 0:
            raise ValueError("it has too much to say")
        return count

    def _number(self, reader: struct.Struct) -> Any:
        value = reader.unpack_from(self._data, self._at)[0]
        self._at += reader.size
        return value

    def _string(self) -> str:
        length = self._number(_U64)
        end = self._at + length
        if end > len(self._data):
            raise IndexError(end)
        text = self._data[self._at : end].decode("utf-8", "replace")
        self._at = end
        return text

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._skip_array()
        if kind not in _READERS:
            raise ValueError(f"{kind} is no type of a value")
        value = self._number(_READERS[kind])
        return short_float(value) if kind == _FLOAT else value

    def _skip_array(self) -> list[Any] | None:
        kind, count = self._number(_U32), self._number(_U64)
        if kind in _READERS:
            self._at += _READERS[kind].size * count
        elif kind == _STRING:
            data, at, unpack = self._data, self._at, _U64.unpack_from
            for _ in range(self._checked(count)):
                at += 8 + unpack(data, at)[0]
            self._at = at
        else:
            raise ValueError(f"{kind} is no type of an item")
        return None if count else []

    def _tensor(self) -> Tensor:
        name, dimensions = self._string(), self._number(_U32)
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"{dimensions} dimensions are too many")
        shape = tuple(self._number(_U64) for _ in range(dimensions))
        kind = self._number(_U32)
        self._number(_U64)
        return Tensor(name, _TENSOR_TYPES.get(kind, f"unknown type {kind}"), shape)


def short_float(value: float) -> float:
    """Return the shortest number that is the same one in 32 bits, as Go writes it."""
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", short) == struct.pack("<f", value):
                return short
        except (OverflowError, struct.error):
            continue
    return value
