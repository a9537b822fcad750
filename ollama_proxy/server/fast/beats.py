"""Take plain beats of nodes, which come all day: 33 a second of 1 000 nodes.

aiohttp's server takes five times as long. What is refused is left to it: it refuses the
same, and logs it.
"""

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.nodes.beat import BeatError
from ollama_proxy.core.ollama.error_bodies import JSON_TYPE
from ollama_proxy.hub.beat_door import BeatDoor
from ollama_proxy.server.fast.connection import ClientConnection
from ollama_proxy.server.fast.parser import PlainRequest
from ollama_proxy.server.fast.response import encoded

_HEADERS = (("Cache-Control", "no-store"), ("Content-Type", JSON_TYPE))


class FastBeats:
    """Answers beats that are taken, with the date of ``clock``."""

    def __init__(self, door: BeatDoor, clock: Clock) -> None:
        self._door, self._clock = door, clock

    def take(self, client: ClientConnection, request: PlainRequest) -> bool:
        """Answer a beat; False leaves it to aiohttp, and nothing has happened."""
        try:
            sender = self._door.admit(client.peer, request)
            body = self._door.take(sender, request.body.head)
        except BeatError:
            return False
        reply = Reply(200, body, _HEADERS)
        client.send(encoded(reply, request.method, self._clock.wall()))
        return True
