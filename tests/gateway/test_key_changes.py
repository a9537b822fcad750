"""Orders about keys: what is made, changed, removed, and written down."""

from dataclasses import replace

import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Caller, Key, KeyId, KeyStanding, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.gateway.key_changes import (
    GRACE_S,
    KeyChanges,
    KeyConflictError,
    UnknownKeyError,
)
from ollama_proxy.gateway.key_text import digest_of, key_id_of
from ollama_proxy.gateway.key_view import key_body
from ollama_proxy.gateway.key_words import KeyFaultsError
from ollama_proxy.gateway.keyring import Keyring
from ollama_proxy.store.memory import MemoryStore
from tests.gateway.rig import NOW, FullStore, SetClock

ROOT = Key(
    KeyId("00000001"), "root", bytes(32), Rights(routes=frozenset({RouteClass.ADMIN}))
)
BY_KEY = Caller("10.0.0.7", ROOT, is_admin=True)
BY_TOKEN = Caller("127.0.0.1", is_admin=True)


class Rig:
    """The orders about keys over one store."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.clock = SetClock()
        self.keyring = Keyring(self.store, self.clock)
        self.changes = KeyChanges(
            self.keyring, Audit(self.store, self.clock), self.clock
        )

    def line(self) -> AuditLine:
        return self.store.audit()[0]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_new_key_is_found_by_its_text_and_stored_without_it(rig: Rig) -> None:
    key, text = rig.changes.make({"name": "laptop", "rpm": 60}, BY_TOKEN)

    assert rig.keyring.find(text) == key
    assert key_id_of(text) == key.id
    assert key.rights == Rights(rpm=60)
    assert key.made_at == NOW
    assert text not in repr(rig.store.all_keys())
    assert rig.store.all_keys()[0].digest == digest_of(text)


def test_two_keys_have_nothing_in_common(rig: Rig) -> None:
    one, one_text = rig.changes.make({"name": "one"}, BY_TOKEN)
    two, two_text = rig.changes.make({"name": "two"}, BY_TOKEN)

    assert one.id != two.id
    assert one_text[12:] != two_text[12:]


def test_an_id_that_is_in_use_is_drawn_again() -> None:
    rig = Rig()
    drawn = iter([b"\0" * 4, b"a" * 32, b"\0" * 4, b"\1" * 4, b"b" * 32])
    changes = KeyChanges(
        rig.keyring, Audit(rig.store, rig.clock), rig.clock, draw=lambda _: next(drawn)
    )

    assert changes.make({"name": "one"}, BY_TOKEN)[0].id == "00000000"
    assert changes.make({"name": "two"}, BY_TOKEN)[0].id == "01010101"


def test_the_audit_has_who_made_what_when(rig: Rig) -> None:
    key, text = rig.changes.make(
        {"name": "laptop", "rpm": 60, "models": "llama3*", "budget": "5/day"}, BY_KEY
    )
    line = rig.line()

    assert (line.at, line.caller, line.address) == (NOW, "root", "10.0.0.7")
    assert (line.action, line.target) == ("key add", f"laptop ({key.id})")
    assert line.detail == (
        "models llama3*; routes chat, embed, read; rpm 60; budget 5/day"
    )
    assert text not in repr(rig.store.audit())


def test_a_change_leaves_what_it_does_not_name(rig: Rig) -> None:
    _, text = rig.changes.make(
        {"name": "laptop", "rpm": 60, "max_hold": "5m"}, BY_TOKEN
    )
    key = rig.changes.edit("laptop", {"rpm": "none", "parallel": 2}, BY_TOKEN)

    assert key.rights == Rights(parallel=2, max_hold_s=300.0)
    assert rig.keyring.find(text) == key
    assert rig.line().action == "key edit"
    assert rig.line().caller == "the order token"
    assert rig.line().detail == "rpm 60 -> none; parallel none -> 2"


def test_a_key_is_disabled_and_enabled(rig: Rig) -> None:
    _, text = rig.changes.make({"name": "laptop"}, BY_TOKEN)
    key = rig.changes.edit("laptop", {"disabled": True}, BY_TOKEN)
    found = rig.keyring.find(text)

    assert found is not None
    assert rig.keyring.standing(found) is KeyStanding.DISABLED
    assert rig.line().action == "key disable"
    assert key_body(key, rig.clock)["standing"] == "disabled"
    rig.changes.edit("laptop", {"disabled": False}, BY_TOKEN)
    assert rig.line().action == "key enable"
    assert rig.keyring.find(text) == replace(key, is_disabled=False)


def test_a_rotated_key_takes_both_texts_for_the_grace_time(rig: Rig) -> None:
    key, old = rig.changes.make({"name": "laptop", "rpm": 5}, BY_TOKEN)
    after, new = rig.changes.rotate("laptop", {}, BY_TOKEN)

    assert (after.id, after.rights) == (key.id, key.rights)
    assert new != old
    assert rig.keyring.find(old) == rig.keyring.find(new) == after
    assert key_body(after, rig.clock)["former_until"] == "2027-01-16T08:00:00Z"
    rig.clock.at += GRACE_S
    assert rig.keyring.find(old) is None
    assert rig.keyring.find(new) == after
    assert key_body(after, rig.clock)["former_until"] is None


def test_a_rotation_without_grace_refuses_the_old_text_at_once(rig: Rig) -> None:
    _, old = rig.changes.make({"name": "laptop"}, BY_TOKEN)
    ended: list[Key] = []
    rig.keyring.on_ended(ended.append)
    rig.changes.rotate("laptop", {"grace": 0}, BY_TOKEN)

    assert rig.keyring.find(old) is None
    assert [key.name for key in ended] == ["laptop"]


@pytest.mark.parametrize("words", [{"grace": "x"}, {"grace": "31d"}, {"rpm": 5}])
def test_a_rotation_takes_a_grace_time_alone(
    rig: Rig, words: dict[str, object]
) -> None:
    _, old = rig.changes.make({"name": "laptop"}, BY_TOKEN)
    with pytest.raises(KeyFaultsError, match="grace"):
        rig.changes.rotate("laptop", words, BY_TOKEN)

    assert rig.keyring.find(old) is not None


def test_a_removed_key_leaves_its_name_free(rig: Rig) -> None:
    key, old = rig.changes.make({"name": "laptop"}, BY_TOKEN)
    rig.changes.remove("laptop", BY_TOKEN)
    again, _ = rig.changes.make({"name": "laptop"}, BY_TOKEN)

    assert rig.keyring.find(old) is None
    assert again.id != key.id
    assert [line.action for line in rig.store.audit()] == [
        "key add",
        "key rm",
        "key add",
    ]


def test_a_key_is_named_by_its_id_too(rig: Rig) -> None:
    key, _ = rig.changes.make({"name": "laptop"}, BY_TOKEN)

    assert rig.changes.named(key.id) == key
    with pytest.raises(KeyFaultsError, match="there is a key 'laptop' already"):
        rig.changes.make({"name": key.id}, BY_TOKEN)


def test_an_unknown_key_is_named_unless_it_is_a_text(rig: Rig) -> None:
    _, text = rig.changes.make({"name": "laptop"}, BY_TOKEN)
    with pytest.raises(UnknownKeyError, match="no key is named 'desk'"):
        rig.changes.remove("desk", BY_TOKEN)
    with pytest.raises(UnknownKeyError, match="no key is named that text"):
        rig.changes.remove(text, BY_TOKEN)


def test_a_name_in_use_is_told_with_all_other_faults(rig: Rig) -> None:
    rig.changes.make({"name": "laptop"}, BY_TOKEN)
    with pytest.raises(KeyFaultsError) as told:
        rig.changes.make({"name": "laptop", "rpm": 0, "routes": "x"}, BY_TOKEN)

    assert [one.partition(":")[0] for one in told.value.faults] == [
        "name",
        "rpm",
        "routes",
    ]
    assert "there is a key 'laptop' already" in told.value.faults[0]


def test_a_key_of_the_file_is_changed_there(rig: Rig) -> None:
    rig.keyring.use_file([Key(KeyId("0000000f"), "desk", digest_of("chosen"))])
    for order in (
        lambda: rig.changes.edit("desk", {"rpm": 5}, BY_TOKEN),
        lambda: rig.changes.rotate("desk", {}, BY_TOKEN),
        lambda: rig.changes.remove("desk", BY_TOKEN),
    ):
        with pytest.raises(KeyConflictError, match="OLLAMA_PROXY_KEYS_FILE"):
            order()
    with pytest.raises(KeyFaultsError, match="'desk' is a key of OLLAMA"):
        rig.changes.make({"name": "desk"}, BY_TOKEN)

    assert [key.name for key in rig.keyring] == ["desk"]


@pytest.mark.parametrize("words", [{}, {"disabled": 1}, {"name": "x"}, {"id": "x"}])
def test_a_change_of_nothing_is_a_fault(rig: Rig, words: dict[str, object]) -> None:
    rig.changes.make({"name": "laptop"}, BY_TOKEN)
    with pytest.raises(KeyFaultsError):
        rig.changes.edit("laptop", words, BY_TOKEN)


def test_what_cannot_be_stored_is_not_made() -> None:
    rig = Rig(FullStore())
    with pytest.raises(StoreError):
        rig.changes.make({"name": "laptop"}, BY_TOKEN)

    assert list(rig.keyring) == []


def test_an_order_is_logged_although_it_cannot_be_stored() -> None:
    rig = Rig(FullStore())
    Audit(rig.store, rig.clock).note(BY_TOKEN, "stop", "default")

    assert rig.store.audit() == []


def test_a_key_is_shown_by_the_words_that_make_it(rig: Rig) -> None:
    words: dict[str, object] = {
        "models": ["llama3*"],
        "routes": ["chat", "read"],
        "rpm": 60,
        "parallel": 3,
        "tokens_per_day": 1000,
        "budget": ["0.5/day", "60/month"],
        "no_wake": True,
        "max_hold": 300.0,
        "priority": -1,
        "expires": "2027-02-14T08:00:00Z",
    }
    key, _ = rig.changes.make({"name": "laptop", **words}, BY_TOKEN)
    body = key_body(key, rig.clock)

    assert {word: body[word] for word in words} == words
    assert body["made"] == "2027-01-15T08:00:00Z"
    assert body["standing"] == "valid"


def test_a_limit_of_tokens_shows_the_limit_that_comes_with_it(rig: Rig) -> None:
    key, _ = rig.changes.make({"name": "laptop", "tokens_per_day": 9}, BY_TOKEN)

    assert key_body(key, rig.clock)["parallel"] == 4
