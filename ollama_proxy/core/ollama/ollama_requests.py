"""Declare the request bodies of Ollama's own routes, as its server does.

Names and types are those of ``api/types.go`` (v0.33), for `go_decode`.
"""

from typing import Annotated, Any, ClassVar

from msgspec import Raw, field

from ollama_proxy.core.ollama.go_types import GoStruct, GoType
from ollama_proxy.core.ollama.ollama_messages import Duration, Int, Message, Think, Tool


class GenerateRequest(GoStruct):
    """Holds the body of ``POST /api/generate``."""

    GO_TYPE: ClassVar = "api.GenerateRequest"
    model: str = ""
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[Int] | None = None
    stream: bool | None = None
    raw: bool = False
    format: Raw = Raw()
    keep_alive: Duration | None = None
    images: list[bytes] | None = None
    options: dict[str, Any] | None = None
    think: Think | None = None
    truncate: bool | None = None
    shift: bool | None = None
    debug_render_only: bool = field(name="_debug_render_only", default=False)
    logprobs: bool = False
    top_logprobs: Int = 0


class ChatRequest(GoStruct):
    """Holds the body of ``POST /api/chat``."""

    GO_TYPE: ClassVar = "api.ChatRequest"
    model: str = ""
    messages: list[Message] | None = None
    stream: bool | None = None
    format: Raw = Raw()
    keep_alive: Duration | None = None
    tools: Annotated[list[Tool] | None, GoType("api.Tools")] = None
    options: dict[str, Any] | None = None
    think: Think | None = None
    truncate: bool | None = None
    shift: bool | None = None
    debug_render_only: bool = field(name="_debug_render_only", default=False)
    logprobs: bool = False
    top_logprobs: Int = 0


class EmbedRequest(GoStruct):
    """Holds the body of ``POST /api/embed``."""

    GO_TYPE: ClassVar = "api.EmbedRequest"
    model: str = ""
    input: Any = None
    keep_alive: Duration | None = None
    truncate: bool | None = None
    dimensions: Int = 0
    options: dict[str, Any] | None = None


class EmbeddingRequest(GoStruct):
    """Holds the body of ``POST /api/embeddings``."""

    GO_TYPE: ClassVar = "api.EmbeddingRequest"
    model: str = ""
    prompt: str = ""
    keep_alive: Duration | None = None
    options: dict[str, Any] | None = None


class PullRequest(GoStruct):
    """Holds the body of ``POST /api/pull``."""

    GO_TYPE: ClassVar = "api.PullRequest"
    model: str = ""
    insecure: bool = False
    username: str = ""
    password: str = ""
    stream: bool | None = None
    name: str = ""


class PushRequest(PullRequest):
    """Holds the body of ``POST /api/push``."""

    GO_TYPE: ClassVar = "api.PushRequest"


class DeleteRequest(GoStruct):
    """Holds the body of ``DELETE /api/delete``."""

    GO_TYPE: ClassVar = "api.DeleteRequest"
    model: str = ""
    name: str = ""


class CopyRequest(GoStruct):
    """Holds the body of ``POST /api/copy``."""

    GO_TYPE: ClassVar = "api.CopyRequest"
    source: str = ""
    destination: str = ""


class ShowRequest(GoStruct):
    """Holds the body of ``POST /api/show``."""

    GO_TYPE: ClassVar = "api.ShowRequest"
    model: str = ""
    system: str = ""
    template: str = ""
    verbose: bool = False
    options: dict[str, Any] | None = None
    name: str = ""


class CreateRequest(GoStruct):
    """Holds the body of ``POST /api/create``."""

    GO_TYPE: ClassVar = "api.CreateRequest"
    model: str = ""
    stream: bool | None = None
    quantize: str = ""
    draft_quantize: str = ""
    from_: str = field(name="from", default="")
    remote_host: str = ""
    files: dict[str, str] | None = None
    draft_files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str = ""
    license: Any = None
    system: str = ""
    parameters: dict[str, Any] | None = None
    messages: list[Message] | None = None
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: dict[str, Any] | None = None
    name: str = ""
    quantization: str = ""
