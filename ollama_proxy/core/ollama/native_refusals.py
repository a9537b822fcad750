"""Refuse requests as Ollama's own handlers do before they look up their models.

Each function follows its handler in ``server/routes.go`` and ``server/create.go``
(v0.33).
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from ollama_proxy.core.ollama.go_words import go_quoted
from ollama_proxy.core.ollama.model_refs import (
    ConflictingSourceError,
    ModelRequiredError,
    Source,
    UnqualifiedNameError,
    is_valid_name,
    parse_pull_ref,
    parse_ref,
)
from ollama_proxy.core.ollama.ollama_requests import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    PullRequest,
    PushRequest,
    ShowRequest,
)

_INVALID_NAME = "invalid model name"
_INVALID_DIGEST = "invalid digest format"
_MOST_LOGPROBS = 20
_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}\Z")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Holds a response of a real Ollama that does not depend on its models.

    - ``is_translated``: the native handler writes it, and a ``/v1`` route translates
      it. Such a response ends with a newline and its type has no charset, even for a
      stream.
    - ``may_change``: it depends on a type or a list of words that a later Ollama may
      extend.
    """

    status: int
    message: str
    is_translated: bool = False
    has_charset: bool = True
    may_change: bool = False


def digest_refusal(path: str) -> Refusal | None:
    """Return how ``/api/blobs/:digest`` refuses a digest that is none."""
    digest = unquote(path.rpartition("/")[2])
    return None if _DIGEST.match(digest) else Refusal(400, _INVALID_DIGEST)


def _model(name: str, *, status: int, message: str) -> Refusal | None:
    """Return what `writeModelRefParseError` says; ``message`` is of the handler."""
    try:
        parse_ref(name)
    except ConflictingSourceError as error:
        return Refusal(400, str(error))
    except UnqualifiedNameError:
        return Refusal(400, _INVALID_NAME)
    except ModelRequiredError:
        return Refusal(status, message)
    return None


def _logprobs(top_logprobs: int) -> Refusal | None:
    if 0 <= top_logprobs <= _MOST_LOGPROBS:
        return None
    message = f"top_logprobs must be between 0 and {_MOST_LOGPROBS}"
    return Refusal(400, message, may_change=True)


def generate(model: str, top_logprobs: int) -> Refusal | None:
    """Return how ``/api/generate`` refuses what it reads first."""
    absent = f"model '{model}' not found"
    return _logprobs(top_logprobs) or _model(model, status=404, message=absent)


def chat(model: str, top_logprobs: int) -> Refusal | None:
    """Return how ``/api/chat`` refuses what it reads first."""
    required = "model is required"
    return _logprobs(top_logprobs) or _model(model, status=400, message=required)


def embed(model: str, value: Any) -> Refusal | None:
    """Return how ``/api/embed`` refuses a model's name or an input (``value``)."""
    absent = f"model '{model}' not found"
    refused = _model(model, status=404, message=absent)
    if refused is not None or parse_ref(model).source is Source.CLOUD:
        return refused
    given = value if isinstance(value, list) else [value]
    if value is None or all(isinstance(element, str) for element in given):
        return None
    return Refusal(400, "invalid input type", may_change=True)


def pull(request: PullRequest) -> Refusal | None:
    """Return how ``/api/pull`` refuses a request."""
    try:
        parse_pull_ref(request.model or request.name)
    except ConflictingSourceError as error:
        return Refusal(400, str(error))
    except (UnqualifiedNameError, ModelRequiredError):
        return Refusal(400, _INVALID_NAME)
    return None


def push(request: PushRequest) -> Refusal | None:
    """Return how ``/api/push`` refuses a request."""
    named = request.model or request.name
    return None if named else Refusal(400, "model is required")


def delete(request: DeleteRequest) -> Refusal | None:
    """Return how ``/api/delete`` refuses a request."""
    name = request.model or request.name
    try:
        parse_pull_ref(name)
    except UnqualifiedNameError:
        return Refusal(400, f"name {go_quoted(name)} is invalid")
    except (ConflictingSourceError, ModelRequiredError) as error:
        return Refusal(400, str(error))
    return None


def copy(request: CopyRequest) -> Refusal | None:
    """Return how ``/api/copy`` refuses a request."""
    for role, name in (
        ("source", request.source),
        ("destination", request.destination),
    ):
        if not is_valid_name(name):
            return Refusal(400, f"{role} {go_quoted(name)} is invalid")
    return None


def create(request: CreateRequest) -> Refusal | None:
    """Return how ``/api/create`` refuses a request."""
    refused = _files(request.files) or _files(request.draft_files)
    if refused is not None:
        return refused
    if request.draft_quantize and not request.draft_files:
        requires = "--draft-quantize requires a DRAFT model"
        return Refusal(400, requires, may_change=True)
    if not all((request.adapters or {}).values()):
        return Refusal(400, _INVALID_DIGEST)
    if not is_valid_name(request.model or request.name):
        return Refusal(400, _INVALID_NAME)
    return _create_from(request)


def _files(files: dict[str, str] | None) -> Refusal | None:
    for name, digest in (files or {}).items():
        if not _is_valid_path(name):
            return Refusal(400, "file path must be relative")
        if not digest:
            return Refusal(400, _INVALID_DIGEST)
    return None


def _create_from(request: CreateRequest) -> Refusal | None:
    if not request.from_ and not request.files:
        neither = "neither 'from' or 'files' was specified"
        said = neither if request.files is None else "unknown type"
        is_list = request.files is not None
        return Refusal(400, said, has_charset=False, may_change=is_list)
    if not request.from_:
        return None
    try:
        parse_ref(request.from_)
    except ValueError:
        return Refusal(400, _INVALID_NAME, has_charset=False)
    return None


def _is_valid_path(path: str) -> bool:
    """Tell what ``fs.ValidPath`` does: relative, without ``..`` or doubled ``/``."""
    return path == "." or all(part not in {"", ".", ".."} for part in path.split("/"))


def show(request: ShowRequest) -> Refusal | None:
    """Return how ``/api/show`` refuses a request."""
    return name_refusal(request.model or request.name)


def name_refusal(name: str) -> Refusal | None:
    """Return how a description of a model is refused for its name."""
    try:
        parse_ref(name)
    except UnqualifiedNameError:
        return Refusal(400, _INVALID_NAME)
    except (ConflictingSourceError, ModelRequiredError) as error:
        return Refusal(400, str(error))
    return None
