"""Whose beats are taken: with a key, and without."""

from pathlib import Path

import pytest

from ollama_proxy.core.nodes.beat import BeatError, parse_beat
from ollama_proxy.core.nodes.legacy_rule import LegacyMode, LegacyRule
from ollama_proxy.hub.beat_access import NodeAccess
from ollama_proxy.hub.beat_rules import check_sender
from ollama_proxy.hub.ports import Sender
from tests.core.nodes.beats import old_beat, sent
from tests.hub.rig import PEER, JoinRig, key_text


@pytest.fixture
def rig(tmp_path: Path) -> JoinRig:
    return JoinRig(tmp_path)


def access(
    rig: JoinRig, mode: LegacyMode = LegacyMode.AUTO, *, client_key: bool = False
) -> NodeAccess:
    return NodeAccess(rig.keyring, LegacyRule(mode), lambda: client_key)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def status(access: NodeAccess, headers: dict[str, str], peer: str = PEER) -> int:
    try:
        access.admit(peer, headers)
    except BeatError as error:
        return error.status
    return 200


def test_a_key_names_its_node_from_wherever_it_is_sent(rig: JoinRig) -> None:
    rig.joining.join(rig.request(rig.token()), PEER)
    for mode in LegacyMode:
        for peer in (PEER, "8.8.8.8", "127.0.0.1"):
            sender = access(rig, mode).admit(
                peer, {**bearer(key_text()), "X-Forwarded-For": "1.2.3.4"}
            )
            assert (sender.peer, sender.node_id) == (peer, "box")


def test_the_first_beat_ends_the_joining(rig: JoinRig) -> None:
    rig.joining.join(rig.request(rig.token()), PEER)
    access(rig).admit(PEER, bearer(key_text()))
    (key,) = rig.store.all_node_keys()
    assert key.is_used


@pytest.mark.parametrize(
    "sent", ["Bearer ", "Bearer x", "Basic x", "x", f"Bearer {key_text(2)}",
             f"Bearer {key_text()}x", "Bearer op_12345678_x"]
)  # fmt: skip
def test_what_is_no_key_is_refused_even_where_none_is_needed(
    sent: str, rig: JoinRig
) -> None:
    assert status(access(rig, LegacyMode.ON), {"Authorization": sent}) == 401
    rig.joining.join(rig.request(rig.token()), PEER)
    assert status(access(rig, LegacyMode.ON), {"Authorization": sent}) == 401


def test_a_former_agent_is_taken_until_the_first_key(rig: JoinRig) -> None:
    former = access(rig)
    assert "read prompts" in former.warning
    assert former.admit(PEER, {"Host": "hub"}).node_id is None
    assert status(former, {}, "8.8.8.8") == 403
    assert status(former, {"Via": "x"}) == 403
    rig.joining.join(rig.request(rig.token()), PEER)
    assert status(former, {"Host": "hub"}) == 403
    assert former.warning == ""
    rig.restart()
    assert status(access(rig), {"Host": "hub"}) == 403


def test_a_token_that_was_only_made_changes_nothing(rig: JoinRig) -> None:
    rig.token()
    assert status(access(rig), {}) == 200


def test_a_key_of_a_client_ends_it_too(rig: JoinRig) -> None:
    assert status(access(rig, client_key=True), {}) == 403
    assert status(access(rig, LegacyMode.ON, client_key=True), {}) == 200
    assert access(rig, LegacyMode.ON, client_key=True).warning


def test_off_takes_keys_alone(rig: JoinRig) -> None:
    rig.joining.join(rig.request(rig.token()), PEER)
    off = access(rig, LegacyMode.OFF)
    assert status(off, {}) == 403
    assert status(off, bearer(key_text())) == 200
    assert off.warning == ""


def test_the_name_of_a_node_with_a_key_is_not_free_while_it_is_away(
    rig: JoinRig,
) -> None:
    rig.joining.join(rig.request(rig.token()), PEER)
    on = access(rig, LegacyMode.ON)
    thief, owner = on.admit(PEER, {}), on.admit(PEER, bearer(key_text()))

    def check(node_id: str, sender: Sender) -> None:
        beat = parse_beat(sent(old_beat(node_id)))
        check_sender(beat, sender, has_key=rig.keyring.has(node_id))

    with pytest.raises(BeatError, match="has joined with a key") as no:
        check("box", thief)
    assert no.value.status == 403
    check("other", thief)
    check("box", owner)


def test_whether_nodes_without_a_key_are_used_is_known(rig: JoinRig) -> None:
    former = access(rig)
    assert former.takes_former()
    rig.joining.join(rig.request(rig.token()), PEER)
    assert not former.takes_former()
    assert access(rig, LegacyMode.ON).takes_former()
