"""Joining: one token, one machine, and nothing half done."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.nodes.join_request import (
    JoinBodyError,
    RenewRequest,
    join_body,
    read_join_request,
)
from ollama_proxy.core.nodes.node_keys import NodeKey, digest_of
from ollama_proxy.hub.join_tokens import MOST_TOKENS, JoinTokenError
from ollama_proxy.hub.joining import JoinRefusedError
from ollama_proxy.node.certificate_request import certificate_request, make_private_key
from tests.hub.rig import OWNER, PEER, JoinRig, key_id, key_text


@pytest.fixture
def rig(tmp_path: Path) -> JoinRig:
    return JoinRig(tmp_path)


def refused(rig: JoinRig, act: Callable[[], object]) -> JoinRefusedError:
    before = (rig.store.all_node_keys(), rig.store.join_tokens(), rig.store.audit())
    with pytest.raises(JoinRefusedError) as caught:
        act()
    after = (rig.store.all_node_keys(), rig.store.join_tokens(), rig.store.audit())
    assert after == before
    return caught.value


def test_a_machine_joins_with_a_token(rig: JoinRig) -> None:
    answer = rig.joining.join(rig.request(rig.token()), PEER)
    key = rig.keyring.find(key_text())
    assert key is not None
    assert key.node_id == answer.node_id == "box"
    assert answer.authority == rig.authority.certificate
    token = rig.authority.hub_token(key_id())
    assert answer.hub_token_digest == digest_of(token).hex()
    assert rig.store.audit()[0].target == "box"
    assert rig.store.audit()[0].address == PEER


def test_nothing_in_the_answer_is_secret(rig: JoinRig) -> None:
    answer = str(rig.joining.join(rig.request(rig.token()), PEER))
    assert rig.authority.hub_token(key_id()) not in answer
    assert "PRIVATE" not in answer
    assert "opn_" not in answer
    assert "opj_" not in answer


def test_another_machine_cannot_join_with_a_used_token(rig: JoinRig) -> None:
    token = rig.token()
    rig.joining.join(rig.request(token), PEER)
    for other in (rig.request(token, "thief", 2), rig.request(token, "box", 2)):
        error = refused(rig, lambda other=other: rig.joining.join(other, PEER))  # type: ignore[misc]
        assert error.status == 403
        assert "each is for one joining" in str(error)
    assert rig.keyring.of_node("thief") is None


def test_the_same_request_gets_the_same_answer_until_the_key_is_used(
    rig: JoinRig,
) -> None:
    request = rig.request(rig.token())
    first = rig.joining.join(request, PEER)
    for _ in range(3):
        rig.restart()  # killed after it stored, before it answered
        again = rig.joining.join(request, PEER)
        assert again.hub_token_digest == first.hub_token_digest
        assert again.authority == first.authority
    assert len(rig.store.all_node_keys()) == 1
    key = rig.keyring.find(key_text())
    assert key is not None
    rig.keyring.note_use(key)
    assert "one joining" in str(refused(rig, lambda: rig.joining.join(request, PEER)))
    rig.restart()
    refused(rig, lambda: rig.joining.join(request, PEER))


def test_a_replay_with_another_certificate_request_is_refused(rig: JoinRig) -> None:
    request = rig.request(rig.token())
    rig.joining.join(request, PEER)
    other = replace(
        request, certificate_request=certificate_request(make_private_key())
    )
    refused(rig, lambda: rig.joining.join(other, PEER))


def test_an_ended_token_is_refused(rig: JoinRig) -> None:
    request = rig.request(rig.token(60.0))
    rig.clock.moment += 60.0
    assert "has ended" in str(refused(rig, lambda: rig.joining.join(request, PEER)))


def test_a_revoked_token_is_refused(rig: JoinRig) -> None:
    request = rig.request(rig.token())
    (token,) = rig.tokens.outstanding()
    rig.tokens.revoke(token.id, OWNER)
    assert rig.tokens.outstanding() == []
    assert "no such join token" in str(
        refused(rig, lambda: rig.joining.join(request, PEER))
    )
    with pytest.raises(JoinTokenError, match="no join token"):
        rig.tokens.revoke(token.id, OWNER)


@pytest.mark.parametrize("spoiled", [
    "", "opj_", "\udcff", f"opj_00000000_{'A' * 43}",
    "right id, another secret", "with its fingerprint",
])  # fmt: skip
def test_another_text_is_no_token(spoiled: str, rig: JoinRig) -> None:
    token = rig.token()
    if spoiled.startswith("right"):
        spoiled = token[:-4] + "AAAA"
    if spoiled.startswith("with"):
        spoiled = f"{token}.{rig.authority.fingerprint}x"
    request = rig.request(spoiled)
    assert refused(rig, lambda: rig.joining.join(request, PEER)).status == 403


def test_a_key_that_is_there_cannot_be_taken_over(rig: JoinRig) -> None:
    rig.joining.join(rig.request(rig.token()), PEER)
    thief = rig.request(rig.token(), "thief")  # the same key_id
    error = refused(rig, lambda: rig.joining.join(thief, PEER))
    assert error.status == 409


def test_a_machine_that_joins_again_ends_its_former_key(rig: JoinRig) -> None:
    ended: list[NodeKey] = []
    rig.keyring.on_ended(ended.append)
    rig.joining.join(rig.request(rig.token()), PEER)
    rig.joining.join(rig.request(rig.token(), number=2), PEER)
    assert rig.keyring.find(key_text(1)) is None
    assert rig.keyring.find(key_text(2)) is not None
    assert [key.id for key in ended] == [key_id(1)]
    assert [key.id for key in rig.store.all_node_keys()] == [key_id(2)]


def test_a_request_that_is_not_signed_uses_no_token_up(rig: JoinRig) -> None:
    token = rig.token()
    bad = replace(rig.request(token), certificate_request="rubbish")
    assert refused(rig, lambda: rig.joining.join(bad, PEER)).status == 400
    rig.joining.join(rig.request(token), PEER)


def test_a_joining_without_tls_gets_no_certificate(rig: JoinRig) -> None:
    request = replace(rig.request(rig.token()), certificate_request="")
    answer = rig.joining.join(request, PEER)
    assert (answer.certificate, answer.authority) == ("", "")


def test_a_joining_that_cannot_be_stored_has_not_happened(
    rig: JoinRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = rig.request(rig.token())

    def fail(*_: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(rig.store, "join_node", fail)
        with pytest.raises(StoreError):
            rig.joining.join(request, PEER)
    assert rig.keyring.find(key_text()) is None
    assert not rig.keyring.was_key_made
    rig.joining.join(request, PEER)
    assert rig.keyring.was_key_made


def test_a_certificate_is_renewed_for_the_node_with_the_key(rig: JoinRig) -> None:
    rig.joining.join(rig.request(rig.token()), PEER)
    key = rig.keyring.find(key_text())
    assert key is not None
    asked = RenewRequest(certificate_request(make_private_key()))
    assert "BEGIN CERTIFICATE" in rig.joining.renew(key, asked).certificate
    refused(rig, lambda: rig.joining.renew(key, RenewRequest("rubbish")))


def test_a_removed_node_is_known_no_more(rig: JoinRig) -> None:
    rig.joining.join(rig.request(rig.token()), PEER)
    key = rig.keyring.find(key_text())
    assert key is not None
    rig.keyring.remove(key, rig.tokens.line_of_joining(OWNER, "box"))
    assert rig.keyring.find(key_text()) is None
    rig.restart()
    assert rig.keyring.find(key_text()) is None
    assert rig.keyring.was_key_made
    rig.keyring.note_use(key)  # a request that was under way brings it not back
    assert rig.store.all_node_keys() == []


@pytest.mark.parametrize("life_s", [-1.0, 0.0, 59.0, 31 * 86_400.0, float("nan")])
def test_a_token_lasts_from_a_minute_to_a_month(life_s: float, rig: JoinRig) -> None:
    with pytest.raises(JoinTokenError, match="30 days"):
        rig.token(life_s)


def test_tokens_are_few_and_ended_ones_make_room(rig: JoinRig) -> None:
    for _ in range(MOST_TOKENS):
        rig.token()
    with pytest.raises(JoinTokenError, match="revoke some"):
        rig.token()
    rig.clock.moment += 3600.0
    rig.token()
    assert len(rig.store.join_tokens()) == 1


def test_no_store_and_no_audit_has_a_secret(rig: JoinRig) -> None:
    token = rig.token()
    rig.joining.join(rig.request(token), PEER)
    kept = f"{rig.store.all_node_keys()}{rig.store.join_tokens()}{rig.store.audit()}"
    assert token[13:] not in kept
    assert key_text()[21:] not in kept


def test_a_request_is_read_as_it_was_written(rig: JoinRig) -> None:
    request = rig.request(rig.token(), "box ä")
    assert read_join_request(join_body(request)) == request
    assert request.token not in repr(request)


WHOLE = {"token": "t", "node_id": "a", "key_id": "0" * 16, "key_digest": "0" * 64}


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b"[" * 30_000])
def test_what_is_no_object_is_no_request_to_join(body: bytes) -> None:
    with pytest.raises(JoinBodyError, match="this is no request to join"):
        read_join_request(body)


@pytest.mark.parametrize(
    "spoiled",
    [
        {"token": 1},
        {"node_id": "a/b"},
        {"node_id": "a\nb"},
        {"node_id": ""},
        {"key_id": "0123456789ABCDEF"},
        {"key_id": "0" * 15},
        {"key_digest": "0" * 63},
        {"certificate_request": None},
    ],
)
def test_a_fault_in_a_request_to_join_is_told(spoiled: dict[str, object]) -> None:
    read_join_request(msgspec.json.encode(WHOLE))
    with pytest.raises(JoinBodyError, match="this is no request to join"):
        read_join_request(msgspec.json.encode(WHOLE | spoiled))


def test_the_log_warns_of_a_machine_that_takes_the_place_of_another(
    tmp_path: Path,
) -> None:
    rig = JoinRig(tmp_path)
    with capture_logs() as lines:
        for number in (1, 2):
            rig.joining.join(rig.request(rig.token(), number=number), PEER)

    joined = [one for one in lines if one["event"] == "node.joined"]
    assert [one["had_key"] for one in joined] == [True]
