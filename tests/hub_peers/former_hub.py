"""A hub as it was before ours, written from its documentation alone."""

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FormerHub:
    """Takes beats, and sends jobs. ``is_strict``: it refuses keys that it lacks."""

    is_strict: bool = False
    url: str = ""
    beats: list[dict[str, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def serving(self) -> Iterator["FormerHub"]:
        """Serve on a port of its own until the block ends."""
        hub = self

        class Handler(_Handler):
            def do_POST(self) -> None:
                self.take(hub)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def execute(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """Have the node of the last beat do a job; return the lines of its answer."""
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.beats[-1]['port']}/execute",
            json.dumps(job).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return [json.loads(line) for line in answer if line.strip()]


_KEYS = {"node_id", "ipv4", "ipv6", "port", "models", "metadata", "load"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""

    def take(self, hub: FormerHub) -> None:
        """Take a beat."""
        beat = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/nodes/heartbeat":
            self._answer(404, {"detail": "Not Found"})
        elif hub.is_strict and not beat.keys() <= _KEYS:
            extra = sorted(beat.keys() - _KEYS)
            told = [{"type": "extra_forbidden", "loc": ["body", key]} for key in extra]
            self._answer(422, {"detail": told})
        else:
            hub.beats.append(beat)
            self._answer(200, {"status": "ok"})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
