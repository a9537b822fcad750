"""Hold a request's body that is in memory."""

from collections.abc import Callable
from dataclasses import dataclass

from multidict import CIMultiDict

from ollama_proxy.upstream.request import PreparedRequest


@dataclass(slots=True)
class ReadyBody:
    """Holds a body as `upstream.request.Body` has it: it can be sent twice."""

    data: bytes | None = None
    complete: bool = True
    on_invited: Callable[[], None] | None = None
    expects: bool = False

    async def invite(self) -> None:
        """Do nothing: all of it is here."""

    def payload(self) -> bytes | None:
        """Return the bytes."""
        return self.data


def ollama_request(method: str, target: str, data: bytes | None) -> PreparedRequest:
    """Return a request to the machine's Ollama; a body is JSON."""
    headers = CIMultiDict({"Content-Type": "application/json"} if data else {})
    return PreparedRequest(method, target, headers, ReadyBody(data))
