#!/usr/bin/python3
"""A replacement of `ollama`: it serves a word, and a pull writes a file.

Like the real one it needs to write a key in its home, and a folder for its models.
"""

import http.server
import os
import sys
import urllib.request
from pathlib import Path


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Ollama is running")


def main() -> None:
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    models = Path(os.environ["OLLAMA_MODELS"])
    match sys.argv[1:]:
        case ["serve"]:
            key = Path(os.environ["HOME"], ".ollama")
            key.mkdir(exist_ok=True)
            (key / "id_ed25519").write_text("a key")
            (models / "blobs").mkdir(exist_ok=True, parents=True)
            http.server.ThreadingHTTPServer((host, int(port)), Answers).serve_forever()
        case ["list"]:
            urllib.request.urlopen(f"http://{host}:{port}/", timeout=5)
        case ["pull", model]:
            (models / "blobs" / model).write_text("weights")


main()
