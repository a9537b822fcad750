"""Where Ollama's server listens for each form of ``OLLAMA_HOST``, as recorded."""

import json
import socket
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).parent / "answers_of_ollama/listen.json"


@dataclass(frozen=True, slots=True)
class Form:
    """What becomes of one value; ``listen.go`` says what the fields are."""

    form: str
    host: str
    port: int
    bad_port: str = ""
    refused: str = ""
    family: str = ""
    address: str = ""
    v6only: bool = False
    reached: tuple[str, ...] = ()

    @property
    def is_read(self) -> bool:
        """Whether host and port are what Ollama makes of the value."""
        unread = self.refused == "no such host" or self.refused.startswith("address ")
        return not (self.bad_port or unread)

    def __str__(self) -> str:
        return repr(self.form)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


HAS_IPV6 = _has_ipv6()
FORMS = [Form(**row) for row in json.loads(_FILE.read_text("utf-8"))]
