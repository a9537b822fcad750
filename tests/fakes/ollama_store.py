"""A folder of models as Ollama leaves it, and weights too small to answer."""

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOW_NS = 1_795_254_417_250_000_000


def gguf(
    values: Mapping[str, Any],
    tensors: Mapping[str, tuple[int, ...]],
    tokens: int = 0,
) -> bytes:
    """Return a GGUF file of texts, whole numbers, fractions and zeros."""

    def text(one: str) -> bytes:
        return struct.pack("<Q", len(one.encode())) + one.encode()

    def value(one: Any) -> bytes:
        if isinstance(one, str):
            return struct.pack("<I", 8) + text(one)
        if isinstance(one, float):
            return struct.pack("<If", 6, one)
        return struct.pack("<II", 4, one)

    listed = struct.pack("<IIQ", 9, 8, tokens) + text("token") * tokens
    scores = struct.pack("<IIQ", 9, 6, tokens) + struct.pack("<f", 0.5) * tokens
    lists = {"tokenizer.ggml.tokens": listed, "tokenizer.ggml.scores": scores}
    fields = {key: value(one) for key, one in values.items()} | lists
    described, size = b"", 0
    for name, shape in tensors.items():
        described += text(name) + struct.pack("<I", len(shape))
        described += struct.pack(f"<{len(shape)}Q", *shape)
        described += struct.pack("<IQ", 0, size)
        size += -(-4 * math.prod(shape) // 32) * 32
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(fields))
    pairs = [text(key) + raw for key, raw in fields.items()]
    whole = head + b"".join(pairs) + described
    return whole + bytes(-len(whole) % 32 + size)


LLAMA = gguf(
    {
        "general.architecture": "llama",
        "general.name": "secret name",
        "llama.context_length": 2048,
        "llama.embedding_length": 64,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
    },
    {"output.weight": (64, 6), "output_norm.weight": (64,)},
    tokens=300,
)
EMBEDDING = gguf({"general.architecture": "bert", "bert.pooling_type": 1}, {})


class StoreFolder:
    """Puts models into a folder, as ``ollama create`` does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put_blob(self, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs = self.folder / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / f"sha256-{digest}").write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def put_raw(self, path: str, data: bytes, *, at_ns: int = NOW_NS) -> Path:
        """Write a manifest as it is."""
        file = self.folder / "manifests" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        os.utime(file, ns=(at_ns, at_ns))
        return file

    def put(
        self,
        path: str = "registry.ollama.ai/library/tiny/latest",
        *,
        weights: bytes = LLAMA,
        config: Mapping[str, Any] | None = None,
        at_ns: int = NOW_NS,
        origin: str = "",
        layers: Mapping[str, list[bytes]] | None = None,
    ) -> Path:
        """Put a model of these layers there."""
        told = {
            "model_format": "gguf",
            "model_family": "llama",
            "model_families": ["llama"],
            "model_type": "17K",
            "file_type": "F32",
        }
        weights_layer = self._layer("model", weights)
        if origin:
            weights_layer["from"] = origin
        others = [
            self._layer(kind, data)
            for kind, every in (layers or {}).items()
            for data in every
        ]
        manifest = {
            "schemaVersion": 2,
            "config": self.put_blob(json.dumps(told | dict(config or {})).encode()),
            "layers": [weights_layer, *others],
        }
        return self.put_raw(path, json.dumps(manifest).encode(), at_ns=at_ns)

    def _layer(self, kind: str, data: bytes) -> dict[str, Any]:
        media = f"application/vnd.ollama.image.{kind}"
        return self.put_blob(data) | {"mediaType": media}
