"""Answer as an Ollama would about the models on its disk, while it does not run.

The shapes are those of ``/api/tags`` and ``/api/show`` (``server/model_list_cache.go``
and ``server/routes.go``, v0.33). Answers that need knowledge built into Ollama, such as
which of its parsers support tools, are left out.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ollama_proxy.backends.gguf import Head
from ollama_proxy.backends.ollama_files import ModelFiles, StoredModel

_DEFAULT_TEMPLATE = "{{ .Prompt }}"
_HIDDEN = frozenset({"general.name", "tokenizer.chat_template"})
_EXPONENT_FROM = 1e21


class _Message(msgspec.Struct):
    """Holds the part of a message that is shown."""

    role: str = ""
    content: str = ""


def listed(files: ModelFiles, model: StoredModel) -> bytes:
    """Return a model's entry in ``/api/tags``; raises one of `UNREADABLE`."""
    config, head = model.config, files.head(model, whole=False)
    told, senses = _senses(head)
    found = [*senses, *told, *(config.capabilities or [])]
    found += _template_capabilities(files.template(model) or "")
    found += ["thinking"] * _thinks(model) + ["vision"] * bool(_projectors(model))
    details = _details(model) | {
        "context_length": config.context_length or head.number("context_length"),
        "embedding_length": config.embedding_length or head.number("embedding_length"),
    }
    body = {
        "name": model.name,
        "model": model.name,
        "remote_model": config.remote_model,
        "remote_host": config.remote_host,
        "modified_at": go_time(model.modified_ns),
        "size": model.size,
        "digest": model.digest,
        "details": _shortened(details, "context_length", "embedding_length"),
        "capabilities": list(dict.fromkeys(found)),
    }
    return msgspec.json.encode(
        _shortened(body, "remote_model", "remote_host", "capabilities")
    )


def shown(files: ModelFiles, model: StoredModel) -> bytes:
    """Return the body of ``/api/show``; raises one of `UNREADABLE`."""
    config, head = model.config, files.head(model, whole=True)
    own, chat = (
        files.template(model),
        str(head.values.get("tokenizer.chat_template", "")),
    )
    options = _options(files, model)
    texts = {kind: _texts(files, model, kind) for kind in ("license", "system")}
    system = texts["system"][-1] if texts["system"] else ""
    messages = _messages(files, model)
    commands = _commands(files, model, own, system, options, texts["license"], messages)
    info = {key: one for key, one in head.values.items() if key not in _HIDDEN}
    if head.values:
        info["general.parameter_count"] = head.parameter_count
    body = {
        "license": "\n".join(texts["license"]),
        "modelfile": _modelfile(model, commands),
        "parameters": "\n".join(f"{k:<30} {_literal(v)}" for k, v in _flat(options)),
        "template": own or chat or _DEFAULT_TEMPLATE,
        "system": system,
        "details": _details(model),
        "messages": messages,
        "remote_model": config.remote_model,
        "remote_host": config.remote_host,
        "model_info": dict(sorted(info.items())),
        "tensors": [
            {"name": one.name, "type": one.kind, "shape": one.shape}
            for one in head.tensors
        ],
        "capabilities": _capabilities(model, head, own, chat),
        "modified_at": go_time(model.modified_ns),
        "requires": config.requires,
    }
    kept = {"details", "model_info", "modified_at"}
    return msgspec.json.encode(_shortened(body, *(set(body) - kept)))


def go_time(moment_ns: int) -> str:
    """Return a file's time as Go writes it, in this machine's time zone."""
    seconds, nanoseconds = divmod(moment_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).astimezone()
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    zone = moment.strftime("%z")
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:5]}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}{zone}"


def _details(model: StoredModel) -> dict[str, Any]:
    config, weights = model.config, model.of_kind("model")
    return {
        "parent_model": weights[-1].origin if weights else "",
        "format": config.model_format,
        "family": config.model_family,
        "families": config.model_families,
        "parameter_size": config.model_type,
        "quantization_level": config.file_type,
    }


def _capabilities(
    model: StoredModel, head: Head, own: str | None, chat: str
) -> list[str]:
    """Return the capabilities of a model, in the order of ``show``."""
    told, senses = _senses(head)
    found = list(model.config.capabilities or [])
    if own is None and not model.config.renderer:
        found += ["tools"] * ("tools" in chat or "tool_call" in chat)
        found += ["thinking"] * ("<think>" in chat and "</think>" in chat)
    found += [*told, *senses]
    found += ["vision"] * bool(_projectors(model))
    found += _template_capabilities(own or "")
    found += ["thinking"] * _thinks(model)
    return list(dict.fromkeys(found))


def _senses(head: Head) -> tuple[list[str], list[str]]:
    """Return what the weights are for, and what they take besides words."""
    if not head.values:
        return [], []
    is_embedding = head.of_architecture("pooling_type") is not None
    senses = [
        sense
        for sense in ("vision", "audio")
        if head.of_architecture(f"{sense}.block_count") is not None
    ]
    return ["embedding" if is_embedding else "completion"], senses


def _template_capabilities(template: str) -> list[str]:
    words = {
        "tools": r"\.Tools\b",
        "insert": r"\.Suffix\b",
        "thinking": r"\.Thinking\b",
    }
    return [word for word, sign in words.items() if re.search(sign, template)]


def _thinks(model: StoredModel) -> bool:
    return model.config.model_family in {"gptoss", "gpt-oss"}


def _projectors(model: StoredModel) -> list[str]:
    return [layer.digest for layer in model.of_kind("projector")]


def _texts(files: ModelFiles, model: StoredModel, kind: str) -> list[str]:
    return [files.read(one).decode("utf-8", "replace") for one in model.of_kind(kind)]


def _options(files: ModelFiles, model: StoredModel) -> dict[str, Any]:
    layers = model.of_kind("params")
    options = msgspec.json.decode(files.read(layers[-1])) if layers else {}
    return options if isinstance(options, dict) else {}


def _messages(files: ModelFiles, model: StoredModel) -> list[dict[str, str]]:
    layers = model.of_kind("messages")
    if not layers:
        return []
    every = msgspec.json.decode(files.read(layers[-1]), type=list[_Message])
    return [{"role": one.role, "content": one.content} for one in every]


def _commands(
    files: ModelFiles,
    model: StoredModel,
    template: str | None,
    system: str,
    options: Mapping[str, Any],
    licenses: list[str],
    messages: list[dict[str, str]],
) -> Iterator[tuple[str, str]]:
    """Yield the commands of a model's Modelfile, and what they are given."""

    def paths(kind: str) -> list[Path]:
        return [files.blob(layer.digest) for layer in model.of_kind(kind)]

    yield "FROM", str(*paths("model")[-1:])
    yield from (("ADAPTER", str(path)) for path in paths("adapter"))
    yield from (("FROM", str(path)) for path in paths("projector"))
    yield "TEMPLATE", _quoted(template or _DEFAULT_TEMPLATE)
    for name, text in (
        ("SYSTEM", system),
        ("RENDERER", model.config.renderer),
        ("PARSER", model.config.parser),
    ):
        if text:
            yield name, _quoted(text)
    for key, value in _flat(options):
        yield f"PARAMETER {key}", _quoted(_plain(value))
    yield from (("LICENSE", _quoted(text)) for text in licenses)
    for one in messages:
        yield "MESSAGE", f"{one['role']} {_quoted(one['content'])}"


def _modelfile(model: StoredModel, commands: Iterator[tuple[str, str]]) -> str:
    head = (
        '# Modelfile generated by "ollama show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        f"# FROM {model.name}\n\n"
    )
    return head + "".join(f"{name} {text}\n" for name, text in commands)


def _flat(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each option; one with several values as many times."""
    for key, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            yield key, one


def _quoted(text: str) -> str:
    """Return a text as a Modelfile takes it (``quote`` in ``parser/parser.go``)."""
    if "\n" not in text and text == text.strip(" "):
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'


def _literal(value: Any) -> str:
    """Return a value as Go's ``%#v`` writes it."""
    return (
        json.dumps(value, ensure_ascii=False)
        if isinstance(value, str)
        else _plain(value)
    )


def _plain(value: Any) -> str:
    """Return a value as Go's ``%v`` writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXPONENT_FROM:
        return str(int(value))
    return str(value)


def _shortened(body: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Leave out empty fields, as Go does for ``omitempty``."""
    return {key: one for key, one in body.items() if one or key not in names}
