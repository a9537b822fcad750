"""An agent as the former hub had it, written from its documentation alone.

It knows nothing of ours: `POST /execute`, and a beat of the former keys every while.
"""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BEAT_S = 0.5


@dataclass(slots=True)
class Manner:
    """How it behaves. ``first_byte_s``: the pause before the first word.

    ``status``: of every answer if it is not 200. ``words``: of an answer. ``word_s``:
    the pause before each of them. ``breaks_after``: words after which it hangs up.
    """

    first_byte_s: float = 0.0
    status: int = 200
    words: int = 3
    word_s: float = 0.0
    breaks_after: int = -1


@dataclass
class FormerAgent:
    """A machine with some models. ``jobs``, ``headers``: what it got.

    ``host``: the address on which it serves.
    """

    node_id: str
    models: tuple[str, ...]
    manner: Manner = field(default_factory=Manner)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    port: int = 0
    host: str = "127.0.0.1"

    def beat(self, hub: str, **changes: object) -> tuple[int, dict[str, Any]]:
        """Say what it has and how busy it is; return the hub's answer."""
        told = {
            "node_id": self.node_id,
            "ipv4": "127.0.0.1",
            "ipv6": None,
            "port": self.port,
            "models": list(self.models),
            "metadata": {"hostname": f"host-of-{self.node_id}"},
            "load": {"cpu": 0.1, "memory": 0.2},
        } | changes
        asked = urllib.request.Request(
            f"{hub}/nodes/heartbeat",
            json.dumps(told).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    @contextlib.contextmanager
    def serving(self) -> Iterator["FormerAgent"]:
        """Serve `/execute` on a port of its own until the block ends."""
        agent = self

        class Handler(_Handler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                self.execute(agent, json.loads(self.rfile.read(length)))

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in self.host else socket.AF_INET

        server = Server((self.host, 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    @contextlib.contextmanager
    def beating(self, hub: str) -> Iterator["FormerAgent"]:
        """Serve, with a beat at once and others until the block ends."""
        ended = threading.Event()

        def beats() -> None:
            while not ended.wait(BEAT_S):
                with contextlib.suppress(OSError):
                    self.beat(hub)

        with self.serving():
            status, told = self.beat(hub)
            assert status == 200, told
            thread = threading.Thread(target=beats)
            thread.start()
            try:
                yield self
            finally:
                ended.set()
                thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""

    def execute(self, agent: FormerAgent, job: dict[str, Any]) -> None:
        """Do a job: JSON lines, or all of it in one piece."""
        agent.jobs.append(job)
        agent.headers.append(str(self.headers))
        status = agent.manner.status if self.path == "/execute" else 404
        if status != 200:
            self._whole(status, {"detail": f"no {agent.node_id}"})
            return
        time.sleep(agent.manner.first_byte_s)
        words = [f"{agent.node_id}-{n} " for n in range(agent.manner.words)]
        last = {"model": job["model"], "done": True, "done_reason": "stop"}
        if not job.get("stream", True):
            self._whole(200, {**last, "response": "".join(words)})
            return
        lines = [{"model": job["model"], "response": w, "done": False} for w in words]
        with contextlib.suppress(OSError):
            self._stream([*lines, {**last, "response": ""}], agent.manner)

    def _whole(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, lines: list[dict[str, Any]], manner: Manner) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, line in enumerate(lines):
            if number == manner.breaks_after:
                self.close_connection = True
                return
            time.sleep(manner.word_s)
            data = json.dumps(line).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")
