"""A registry of images, on a thread of its own, for tests and their processes."""

import functools
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ollama_proxy.backends.base.image_registry import GUARDED

_OCI = "application/vnd.oci.image"
_STATUSES = {"private": 403, "absent": 404, "down": 503}
"""What the registry answers about tags that begin with these words."""


def _packed(told: Any) -> tuple[str, bytes]:
    raw = json.dumps(told).encode()
    return f"sha256:{hashlib.sha256(raw).hexdigest()}", raw


def _config(tag: str) -> bytes:
    labels = {} if tag.startswith("stock") else {GUARDED: "1"}
    config = {"User": "42420", "Labels": labels}
    told = {"architecture": "amd64", "os": "linux", "config": config}
    return _packed(told)[1]


def _manifest(tag: str) -> bytes:
    digest, raw = _packed(json.loads(_config(tag)))
    layer = {"digest": "sha256:" + "0" * 64, "size": 3 << 30}
    told = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": {"digest": digest, "size": len(raw)},
        "layers": [layer],
    }
    return _packed(told)[1]


class _Handler(BaseHTTPRequestHandler):
    """Answers about any tag: an image of ours, or ``stock``, or as in `_STATUSES`.

    A blob is found by its digest among those of both kinds.
    """

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if "/blobs/" in self.path:
            blobs = dict(_packed(json.loads(_config(tag))) for tag in ("", "stock"))
            self._answer(200 if name in blobs else 404, blobs.get(name, b""))
            return
        faults = [code for word, code in _STATUSES.items() if name.startswith(word)]
        status = faults[0] if faults else 200
        self._answer(status, b"" if faults else _manifest(name))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{_OCI}.manifest.v1+json")
        self.send_header("Docker-Content-Digest", _packed(json.loads(body or "0"))[0])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@functools.cache
def registry() -> str:
    """Return host and port of the registry, which ends with this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_port}"
