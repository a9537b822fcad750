"""What a registry says of an image, asked of a small registry on this machine."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from ollama_proxy.backends.base.image_registry import GUARDED, look_at, parse_reference
from ollama_proxy.base.errors import BackendError, SpecError, TransientError

OCI = "application/vnd.oci.image"


@dataclass(slots=True)
class Registry:
    """Images by repository and tag, as the distribution protocol has them."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    status: int = 200

    def blob(self, told: Any) -> dict[str, Any]:
        raw = json.dumps(told).encode()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self.blobs[digest] = raw
        return {"digest": digest, "size": len(raw)}

    def add(
        self,
        tag: str,
        *,
        architecture: str = "amd64",
        listed: bool = True,
        **config: Any,
    ) -> str:
        told = {"architecture": architecture, "os": "linux", "config": config}
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": self.blob(told),
            "layers": [{"digest": "sha256:" + "0" * 64, "size": 3 << 30}],
        }
        kind, raw = manifest["mediaType"], json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self.tags[digest] = (str(kind), raw)
        if listed:
            entry = {
                "digest": digest,
                "platform": {"os": "linux", "architecture": architecture},
            }
            kind = f"{OCI}.index.v1+json"
            index = {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}
            raw = json.dumps(index).encode()
        self.tags[tag] = (str(kind), raw)
        return f"{self.host}/team/ollama:{tag}"

    async def handle(self, request: web.Request) -> web.Response:
        if self.status != 200:
            return web.Response(status=self.status)
        name = request.path.rpartition("/")[2]
        if "/blobs/" in request.path:
            return web.Response(body=self.blobs[name])
        if name not in self.tags:
            return web.Response(status=404)
        kind, raw = self.tags[name]
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        headers = {"Docker-Content-Digest": digest}
        return web.Response(body=raw, content_type=kind, headers=headers)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    made = Registry()
    app = web.Application()
    app.router.add_route("*", "/v2/team/ollama/{rest:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.host = f"127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.mark.parametrize("listed", [True, False])
async def test_an_image_is_examined_without_fetching_it(
    registry: Registry, listed: bool
) -> None:
    name = registry.add("1", listed=listed, Labels={GUARDED: "1"}, User="42420")
    image = await look_at(name)

    assert image.is_guarded
    assert (image.size, image.user) == (3 << 30, "42420")
    assert image.digest.startswith("sha256:")


async def test_a_stock_image_is_told_from_ours(registry: Registry) -> None:
    image = await look_at(registry.add("stock"))

    assert not image.is_guarded
    assert image.user == "root"


@pytest.mark.parametrize("listed", [True, False])
async def test_an_image_for_another_machine_is_refused(
    registry: Registry, listed: bool
) -> None:
    name = registry.add("arm", architecture="arm64", listed=listed)
    with pytest.raises(SpecError, match="amd64"):
        await look_at(name)


async def test_an_image_that_is_not_there_is_named(registry: Registry) -> None:
    with pytest.raises(SpecError, match="there is no image"):
        await look_at(f"{registry.host}/team/ollama:none")


async def test_a_registry_that_is_down_says_nothing_of_the_image(
    registry: Registry,
) -> None:
    name = registry.add("1")
    registry.status = 503
    with pytest.raises(TransientError):
        await look_at(name)


async def test_nothing_there_is_no_traceback() -> None:
    with pytest.raises(BackendError):
        await look_at("127.0.0.1:9/team/ollama:1")


@pytest.mark.parametrize(
    ("text", "host", "repository", "alias"),
    [
        ("ollama/ollama:0.3", "registry-1.docker.io", "ollama/ollama", "0.3"),
        ("nginx:1", "registry-1.docker.io", "library/nginx", "1"),
        ("ghcr.io/a/b/c:x", "ghcr.io", "a/b/c", "x"),
        ("localhost/a:x", "localhost", "a", "x"),
        ("r.example:5000/a@sha256:ab", "r.example:5000", "a", "sha256:ab"),
        ("r.example/a:1@sha256:ab", "r.example", "a", "sha256:ab"),
    ],
)
def test_a_reference_is_read_as_engines_read_it(
    text: str, host: str, repository: str, alias: str
) -> None:
    found = parse_reference(text)

    assert (found.host, found.repository, found.alias) == (host, repository, alias)


@pytest.mark.parametrize("text", ["ollama/ollama", "r.example:5000/a", ""])
def test_a_name_without_tag_and_digest_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="no tag and no digest"):
        parse_reference(text)
