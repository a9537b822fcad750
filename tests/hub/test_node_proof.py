"""Which of some addresses is a node: asked over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from ollama_proxy.base.server_tls import server_context
from ollama_proxy.core.nodes.node_keys import NodeKey, digest_of, nonce_secret
from ollama_proxy.hub.node_proof import NodeProver
from ollama_proxy.node.certificate_request import certificate_request, make_private_key
from ollama_proxy.node.hub_access import HubAccess
from ollama_proxy.upstream.endpoint import Link
from tests.hub.rig import JoinRig, key_id, key_text
from tests.ports import address_of_nobody

KEY = NodeKey(key_id(), "box", digest_of(key_text()))
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class FakeNode:
    """A server at an address of a node; ``seen``: the heads of what it was asked."""

    url: str = ""
    seen: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def node(answer: Answer, **site: object) -> AsyncIterator[FakeNode]:
    fake = FakeNode()

    async def handle(request: web.Request) -> web.StreamResponse:
        fake.seen.append(f"{request.raw_path} {dict(request.headers)}")
        return await answer(request)

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0, **site)  # type: ignore[arg-type]
    await listening.start()
    server = listening._server
    assert isinstance(server, asyncio.Server)
    scheme = "https" if site else "http"
    fake.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


def proving(text: str = key_text()) -> Answer:
    access = HubAccess(b"", nonce_secret(digest_of(text)))

    async def answer(request: web.Request) -> web.StreamResponse:
        proof = access.proof(request.query["nonce"])
        return web.json_response({"status": "ok", "proof": proof})

    return answer


def saying(body: bytes, status: int = 200) -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status)

    return answer


async def hanging(_request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def found(
    *urls: str, link: Link | None = None, ask_s: float = 5.0, head_start_s: float = 0.05
) -> str:
    async with aiohttp.ClientSession() as session:
        prover = NodeProver(session, ask_s=ask_s, head_start_s=head_start_s)
        return await prover(urls, KEY, link or Link())


async def test_the_node_itself_is_found() -> None:
    async with node(proving()) as box:
        assert await found(box.url) == box.url


async def test_each_question_has_a_nonce_of_its_own_and_no_token() -> None:
    async with node(proving()) as box:
        await found(box.url)
        await found(box.url)
    first, second = box.seen
    assert first.startswith("/healthz?nonce=")
    assert first.split()[0] != second.split()[0]
    assert "Authorization" not in first


@pytest.mark.parametrize(
    "answer",
    [
        proving(key_text(2)),
        saying(b'{"status": "ok"}'),
        saying(b'{"proof": null}'),
        saying(b'{"proof": "' + b"0" * 64 + b'"}'),
        saying('{"proof": "ä"}'.encode()),
        saying(b""),
        saying(b"[" * 4000),
        saying(b"x" * 1_000_000),
        saying(b"\xff"),
        saying(b"{}", 500),
        saying(b"{}", 401),
    ],
)
async def test_another_server_is_not(answer: Answer) -> None:
    async with node(answer) as other:
        assert await found(other.url) == ""


async def test_a_proof_with_another_status_is_none() -> None:
    async def refusing(request: web.Request) -> web.StreamResponse:
        answer = await proving()(request)
        answer.set_status(403)
        return answer

    async with node(refusing) as other:
        assert await found(other.url) == ""


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_the_node_is_not_followed(status: int) -> None:
    async with node(proving()) as box:

        async def redirect(request: web.Request) -> web.StreamResponse:
            location = f"{box.url}{request.raw_path}"
            return web.Response(status=status, headers={"Location": location})

        async with node(redirect) as other:
            assert await found(other.url) == ""
        assert box.seen == []


async def test_an_address_that_hangs_holds_no_other_up() -> None:
    async with asyncio.timeout(20), node(hanging) as slow, node(proving()) as box:
        nobody = f"http://{address_of_nobody()}"
        assert await found(slow.url, nobody, box.url, ask_s=30) == box.url


async def test_nobody_is_waited_for_longer_than_the_bound() -> None:
    async with node(hanging) as slow:
        async with asyncio.timeout(20):
            assert await found(slow.url, ask_s=0.1) == ""


async def test_an_answer_that_does_not_end_is_cut_at_the_bound() -> None:
    async def dripping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.01)
        return response

    async with node(dripping) as slow, asyncio.timeout(20):
        assert await found(slow.url, ask_s=0.2) == ""


async def test_no_address_is_no_node() -> None:
    assert await found() == ""
    assert await found("http://127.0.0.1:1") == ""


async def test_on_tls_another_certificate_ends_it_before_a_byte_is_sent(
    tmp_path: Path,
) -> None:
    rig = JoinRig(tmp_path)
    link = rig.authority.link(KEY.id, is_tls=True)
    for signed_for, is_it in ((KEY.id, True), (key_id(2), False)):
        private = make_private_key()
        signed = rig.authority.sign(certificate_request(private), signed_for)
        path = tmp_path / "node.pem"
        path.write_text(signed + private)
        context = server_context()
        context.load_cert_chain(path)
        async with node(proving(), ssl_context=context) as box:
            assert (await found(box.url, link=link) == box.url) is is_it
            assert bool(box.seen) is is_it
