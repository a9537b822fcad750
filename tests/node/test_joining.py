"""A machine joins a hub over real sockets, however often either of them is killed."""

import asyncio
import random
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ollama_proxy.base.errors import StartupError, StoreError
from ollama_proxy.base.retry import GrowingPause
from ollama_proxy.base.server_tls import server_context
from ollama_proxy.core.nodes.node_keys import node_key_id_of
from ollama_proxy.core.nodes.tls_names import node_name
from ollama_proxy.node import joining, membership
from ollama_proxy.node.hub_calls import ask_hub
from ollama_proxy.node.hub_client import HubAwayError, HubRefusedError
from ollama_proxy.node.joining import Joiner
from ollama_proxy.node.membership import Membership, read_membership
from ollama_proxy.node.renewal import Renewal
from tests.hub.handshakes import shake_hands
from tests.hub.rig import OWNER, JoinRig
from tests.hub.served import ServedHub, serving
from tests.ports import held_port

QUICK = GrowingPause(0.01, 0.02)


class KilledError(BaseException):
    """Stands for ``kill -9``: nothing of ours catches it."""


@pytest.fixture
def rig(tmp_path: Path) -> JoinRig:
    return JoinRig(tmp_path / "hub-state")


@pytest.fixture
async def hub(rig: JoinRig) -> AsyncIterator[ServedHub]:
    async with serving(rig) as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "node-state"


def token_text(rig: JoinRig, *, is_tls: bool = True) -> str:
    return rig.tokens.make(3600.0, rig.authority.fingerprint if is_tls else "", OWNER)[
        1
    ]


def joiner(url: str, folder: Path, node_id: str = "box", *, tls: bool = True) -> Joiner:
    return Joiner(url, folder, node_id, is_tls=tls, pause=QUICK)


def modes(folder: Path) -> dict[str, int]:
    found = [folder, *folder.iterdir()] if folder.exists() else []
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in found}


async def joined(hub: ServedHub, folder: Path, token: str | None) -> Membership:
    async with asyncio.timeout(20):
        found = await joiner(hub.url, folder).membership(token)
    assert found is not None
    return found


async def test_a_machine_joins_and_has_what_it_needs(
    rig: JoinRig, hub: ServedHub, folder: Path
) -> None:
    member = await joined(hub, folder, token_text(rig))
    key = rig.keyring.find(member.key)
    assert key is not None
    assert key.node_id == member.node_id == "box"
    assert member.access.is_hub(f"Bearer {rig.authority.hub_token(key.id)}")
    context = server_context()
    member.show_certificate(folder, context)
    trusted = rig.authority.link(key.id, is_tls=True).context
    assert trusted is not None
    shake_hands(trusted, context, node_name(key.id))


async def test_what_it_keeps_is_for_its_user_alone(
    rig: JoinRig, hub: ServedHub, folder: Path
) -> None:
    member = await joined(hub, folder, token_text(rig))
    member.show_certificate(folder, server_context())
    assert modes(folder) == {
        "node-state": 0o700,
        "node-membership.json": 0o600,
        "node-certificate.pem": 0o600,
    }


async def test_its_secrets_are_in_no_log_no_url_and_no_repr(
    rig: JoinRig, hub: ServedHub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = token_text(rig)
    member = await joined(hub, folder, text)
    paths = [line for line in hub.seen if line.startswith("/")]
    logged = capsys.readouterr()
    everywhere = f"{member!r} {paths} {logged.out} {logged.err}"
    for secret in (text[13:56], member.key[21:], member.private_key[40:80]):
        assert secret not in everywhere
    bodies = "".join(hub.seen)
    assert member.key not in bodies  # its digest alone is sent
    assert "PRIVATE" not in bodies


async def test_a_machine_that_has_joined_asks_no_hub_again(
    rig: JoinRig, folder: Path
) -> None:
    text = token_text(rig)
    async with serving(rig) as hub:
        member = await joined(hub, folder, text)
    nobody = f"https://127.0.0.1:{hub.port}"
    for token in (text, None, ""):  # a container has it in its settings for ever
        async with asyncio.timeout(5):
            assert await joiner(nobody, folder).membership(token) == member


async def test_a_new_token_joins_anew(
    rig: JoinRig, hub: ServedHub, folder: Path
) -> None:
    first = await joined(hub, folder, token_text(rig))
    second = await joined(hub, folder, token_text(rig))
    assert rig.keyring.find(first.key) is None
    assert rig.keyring.find(second.key) is not None
    assert read_membership(folder) == second


async def test_a_machine_without_a_token_has_not_joined(folder: Path) -> None:
    assert await joiner("http://127.0.0.1:1", folder).membership(None) is None
    assert modes(folder) == {}


async def test_another_server_gets_nothing_but_a_question_for_its_name(
    rig: JoinRig, tmp_path: Path, folder: Path
) -> None:
    thief = JoinRig(tmp_path / "thief")
    text = token_text(rig)
    async with serving(thief) as hub:
        with pytest.raises(StartupError, match="not the hub that made the token"):
            await joined(hub, folder, text)
    assert [line.split(" ")[0] for line in hub.seen if line] == [
        "/nodes/join/authority"
    ]
    assert text[13:56] not in "".join(hub.seen)


async def test_a_server_that_shows_the_right_authority_without_its_key_gets_no_token(
    rig: JoinRig, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thief = JoinRig(tmp_path / "thief")
    monkeypatch.setattr(
        type(thief.joining), "authority", property(lambda _: rig.authority.certificate)
    )
    text = token_text(rig)
    async with serving(thief) as hub:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await joiner(hub.url, folder).membership(text)
    assert text[13:56] not in "".join(hub.seen)


async def test_a_redirect_is_not_followed(
    rig: JoinRig, hub: ServedHub, folder: Path, tmp_path: Path
) -> None:
    async with serving(JoinRig(tmp_path / "other")) as other:
        hub.redirect = f"{other.url}/nodes/join"
        with pytest.raises(StartupError, match="answered 307"):
            await joined(hub, folder, token_text(rig))
        assert other.seen == []


async def test_a_used_token_is_refused_in_the_words_of_the_hub(
    rig: JoinRig, hub: ServedHub, folder: Path, tmp_path: Path
) -> None:
    text = token_text(rig)
    await joined(hub, folder, text)
    with pytest.raises(StartupError, match="each is for one joining"):
        await joined(hub, tmp_path / "thief", text)


@pytest.mark.parametrize("text", ["x", "opj_", "op_01234567_x", "opj_0123abcd_x.y"])
async def test_what_is_no_token_is_told_without_asking(text: str, folder: Path) -> None:
    with pytest.raises(StartupError, match="is no join token") as caught:
        await joiner("https://127.0.0.1:1", folder).membership(text)
    assert text not in str(caught.value) or len(text) < 5


async def test_a_url_without_tls_is_refused_unless_that_is_wanted(
    rig: JoinRig, folder: Path
) -> None:
    text = token_text(rig)
    with pytest.raises(StartupError, match="--no-tls"):
        await joiner("http://127.0.0.1:1", folder).membership(text)
    async with serving(rig, is_tls=False) as hub:
        plain = joiner(hub.url, folder, tls=False)
        member = await plain.membership(token_text(rig, is_tls=False))
    assert member is not None
    assert not member.has_tls
    assert not member.is_pinned
    assert rig.keyring.find(member.key) is not None


async def test_another_name_than_it_joined_with_is_told(
    rig: JoinRig, hub: ServedHub, folder: Path
) -> None:
    await joined(hub, folder, token_text(rig))
    with pytest.raises(StartupError, match="joined the hub as 'box'"):
        await joiner(hub.url, folder, "renamed").membership(None)


async def test_it_waits_for_a_hub_that_is_away(rig: JoinRig, folder: Path) -> None:
    port = held_port()
    waiting = asyncio.ensure_future(
        joiner(f"https://127.0.0.1:{port}", folder).membership(token_text(rig))
    )
    await asyncio.sleep(0.1)
    assert not waiting.done()
    async with serving(rig, port=port), asyncio.timeout(20):
        member = await waiting
    assert member is not None


async def test_a_hub_that_cannot_store_is_asked_again(
    rig: JoinRig, hub: ServedHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    real = rig.store.join_node

    def fail(*given: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise StoreError("the disk is full")
        real(*given)

    monkeypatch.setattr(rig.store, "join_node", fail)
    await joined(hub, folder, token_text(rig))
    assert len(tries) == 3


async def test_a_folder_that_cannot_be_written_is_told_before_the_hub_is_asked(
    rig: JoinRig, hub: ServedHub, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="OLLAMA_PROXY_STATE_DIR"):
        await joined(hub, tmp_path / "file", token_text(rig))
    assert hub.seen == []


async def test_a_lost_answer_is_asked_for_again(
    rig: JoinRig, hub: ServedHub, folder: Path
) -> None:
    hub.cuts = 3
    member = await joined(hub, folder, token_text(rig))
    assert rig.keyring.find(member.key) is not None
    assert len(rig.store.all_node_keys()) == 1


KILLED_AT = [
    (joining, "write_draft", "before"),
    (joining, "write_draft", "after"),
    (joining, "fingerprint_of", "after"),
    (joining, "join_body", "before"),
    (joining, "Membership", "after"),
    (joining, "write_membership", "before"),
    (membership, "_write", "after"),
    (joining, "write_membership", "after"),
]


@pytest.mark.parametrize(
    ("where", "name", "when"),
    KILLED_AT,
    ids=lambda part: getattr(part, "__name__", part),
)
async def test_an_agent_that_is_killed_joins_with_the_same_token_at_its_next_start(
    where: Any,
    name: str,
    when: str,
    rig: JoinRig,
    hub: ServedHub,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = token_text(rig)
    real = getattr(where, name)

    def killed(*given: Any, **named: Any) -> Any:
        if when == "after":
            real(*given, **named)
        raise KilledError

    with monkeypatch.context() as broken:
        broken.setattr(where, name, killed)
        with pytest.raises(KilledError):
            await joined(hub, folder, text)
    rig.restart()  # and so is the hub
    async with serving(rig) as again:
        member = await joined(again, folder, text)
    assert [key.id for key in rig.store.all_node_keys()] == [node_key_id_of(member.key)]
    assert "node-joining.json" not in modes(folder) or when == "after"


@pytest.mark.parametrize("name", ["put_join_token", "join_node"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_hub_that_is_killed_knows_the_whole_joining_or_nothing_of_it(
    name: str,
    when: str,
    rig: JoinRig,
    hub: ServedHub,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = getattr(rig.store, name)

    def killed(*given: Any) -> None:
        if when == "after":
            real(*given)
        raise KilledError

    with monkeypatch.context() as broken:
        broken.setattr(rig.store, name, killed)
        if name == "put_join_token":
            with pytest.raises(KilledError):
                token_text(rig)
        else:
            request = rig.request(rig.token())
            with pytest.raises(KilledError):
                rig.joining.join(request, "192.168.1.7")
    rig.restart()
    if name == "join_node":
        rig.joining.join(request, "192.168.1.7")  # the agent asks once more
        assert rig.keyring.of_node("box") is not None
    text = token_text(rig)
    async with serving(rig) as again:
        await joined(again, folder, text)


async def test_a_damaged_membership_is_joined_anew(
    rig: JoinRig, hub: ServedHub, folder: Path
) -> None:
    await joined(hub, folder, token_text(rig))
    (folder / "node-membership.json").write_bytes(b'{"node_id": "box"')
    await joined(hub, folder, token_text(rig))


async def test_a_certificate_is_renewed_and_shown_at_once(
    rig: JoinRig, hub: ServedHub, folder: Path
) -> None:
    member = await joined(hub, folder, token_text(rig))
    context = server_context()
    member.show_certificate(folder, context)
    async with member.open_session() as session:
        await Renewal(
            session, hub.url, folder, member, context, random.Random(1)
        ).renew()
    after = read_membership(folder)
    assert after is not None
    assert after.certificate != member.certificate
    assert replace(after, certificate=member.certificate) == member
    key_id = node_key_id_of(member.key)
    assert key_id is not None
    trusted = rig.authority.link(key_id, is_tls=True).context
    assert trusted is not None
    shake_hands(trusted, context, node_name(key_id))


async def test_a_certificate_that_is_damaged_leaves_the_former_one(
    rig: JoinRig,
    hub: ServedHub,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    member = await joined(hub, folder, token_text(rig))
    context = server_context()
    member.show_certificate(folder, context)
    monkeypatch.setattr(type(rig.authority), "sign", lambda *_: "rubbish")
    async with member.open_session() as session:
        renewal = Renewal(session, hub.url, folder, member, context, random.Random(1))
        with pytest.raises(OSError, match=r"PEM|SSL|lib"):
            await renewal.renew()
    assert read_membership(folder) == member


async def test_a_removed_node_gets_no_certificate(
    rig: JoinRig, hub: ServedHub, folder: Path
) -> None:
    member = await joined(hub, folder, token_text(rig))
    key = rig.keyring.find(member.key)
    assert key is not None
    rig.keyring.remove(key, rig.tokens.line_of_joining(OWNER, "box"))
    async with member.open_session() as session:
        renewal = Renewal(
            session, hub.url, folder, member, server_context(), random.Random(1)
        )
        with pytest.raises(HubRefusedError, match="no such key"):
            await renewal.renew()


async def test_it_renews_at_its_start_and_goes_on_while_the_hub_is_away(
    rig: JoinRig, folder: Path
) -> None:
    async with serving(rig) as hub:
        member = await joined(hub, folder, token_text(rig))
        context = server_context()
        async with member.open_session() as session:
            renewal = Renewal(
                session,
                hub.url,
                folder,
                member,
                context,
                random.Random(1),
                every_s=0.02,
            )
            running = asyncio.ensure_future(renewal.run())
            first = await _another_than(member, folder)
            hub.cuts = 2
            await _another_than(first, folder)
            running.cancel()


async def _another_than(before: Membership, folder: Path) -> Membership:
    async with asyncio.timeout(20):
        while (now := read_membership(folder)) is None or now == before:
            await asyncio.sleep(0.01)
    return now


async def test_a_hub_that_lost_its_authority_is_told_with_what_to_do(
    rig: JoinRig, hub: ServedHub, folder: Path, tmp_path: Path
) -> None:
    member = await joined(hub, folder, token_text(rig))
    async with serving(JoinRig(tmp_path / "anew")) as other:
        async with member.open_session() as session:
            with pytest.raises(HubAwayError, match="join again with a new node token"):
                await ask_hub(session, f"{other.url}/nodes/renew", b"{}")
        assert other.seen == []
