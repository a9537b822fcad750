"""Which key a text is of, in memory: the one that the store or a file has."""

import timeit
from dataclasses import replace

import pytest

from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Key, KeyId, KeyStanding, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.gateway.key_text import digest_of, key_text
from ollama_proxy.gateway.keyring import LONGEST_TEXT, Keyring
from ollama_proxy.store.memory import MemoryStore
from tests.fakes.keys import ADMIN_ALONE, GOOD, READER
from tests.gateway.rig import FullStore, SetClock

LINE = AuditLine(1.0, "", "", "key add")
TEXT = key_text(KeyId("0123abcd"), bytes(range(32)))
NEWER = key_text(KeyId("0123abcd"), bytes(32))
CHOSEN = "correct-horse-battery-staple-and-more"
ADMIN = Rights(routes=frozenset({RouteClass.ADMIN}))


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def ring(clock: SetClock) -> Keyring:
    return Keyring(MemoryStore(), clock)


@pytest.fixture
def ended(ring: Keyring) -> list[str]:
    names: list[str] = []
    ring.on_ended(lambda key: names.append(key.name))
    return names


def laptop(text: str = TEXT) -> Key:
    return Key(KeyId("0123abcd"), "laptop", digest=digest_of(text))


def of_file(text: str = CHOSEN, name: str = "chat-ui") -> Key:
    return Key(KeyId("00000000"), name, digest=digest_of(text))


def test_a_key_is_found_by_its_text_alone(ring: Keyring) -> None:
    ring.put(laptop(), LINE)

    assert ring.find(TEXT) == laptop()
    assert ring.find(NEWER) is None
    assert ring.find(TEXT + "A") is None
    assert ring.find("") is None


def test_keys_are_found_again_after_a_restart(clock: SetClock) -> None:
    store = MemoryStore()
    Keyring(store, clock).put(laptop(), LINE)
    later = Keyring(store, clock)

    assert later.find(TEXT) == laptop()
    assert later.are_keys_needed


def test_an_old_text_is_taken_for_the_grace_time_only(
    ring: Keyring, clock: SetClock, ended: list[str]
) -> None:
    ring.put(laptop(), LINE)
    rotated = replace(
        laptop(NEWER), former_digest=digest_of(TEXT), former_until=clock.at + 60.0
    )
    ring.put(rotated, LINE)

    assert ring.find(TEXT) == ring.find(NEWER) == rotated
    clock.at += 60.0
    assert ring.find(TEXT) is None
    assert ring.find(NEWER) == rotated
    assert ended == []


def test_a_rotation_without_grace_ends_what_the_old_text_began(
    ring: Keyring, ended: list[str]
) -> None:
    ring.put(laptop(), LINE)
    ring.put(laptop(NEWER), LINE)

    assert ring.find(TEXT) is None
    assert ended == ["laptop"]


def test_a_disabled_key_is_found_so_that_its_refusal_can_name_it(
    ring: Keyring, ended: list[str]
) -> None:
    ring.put(laptop(), LINE)
    ring.put(replace(laptop(), is_disabled=True), LINE)
    ring.put(replace(laptop(), is_disabled=True, rights=ADMIN), LINE)
    found = ring.find(TEXT)

    assert found is not None
    assert ring.standing(found) is KeyStanding.DISABLED
    assert ended == ["laptop"]


def test_a_key_expires_and_ends_nothing_by_it(
    ring: Keyring, clock: SetClock, ended: list[str]
) -> None:
    ring.put(replace(laptop(), expires_at=clock.at + 1.0), LINE)
    found = ring.find(TEXT)
    assert found is not None

    assert ring.standing(found) is KeyStanding.VALID
    clock.at += 1.0
    assert ring.standing(found) is KeyStanding.EXPIRED
    assert ended == []


def test_a_removed_key_is_not_found_and_what_goes_on_with_it_ends(
    ring: Keyring, ended: list[str]
) -> None:
    ring.put(laptop(), LINE)
    ring.remove(laptop(), LINE)

    assert ring.find(TEXT) is None
    assert ring.by_name("laptop") is None
    assert ended == ["laptop"]
    assert ring.are_keys_needed


def test_what_is_not_stored_takes_no_effect(clock: SetClock) -> None:
    ring = Keyring(FullStore(), clock)
    with pytest.raises(StoreError):
        ring.put(laptop(), LINE)

    assert ring.find(TEXT) is None
    assert not ring.are_keys_needed


def test_a_key_that_is_not_removed_from_the_store_is_still_taken(
    clock: SetClock,
) -> None:
    store = MemoryStore()
    store.put_key(laptop(), LINE)
    full = FullStore()
    full.__dict__.update(store.__dict__)
    ring = Keyring(full, clock)
    with pytest.raises(StoreError):
        ring.remove(laptop(), LINE)

    assert ring.find(TEXT) == laptop()


def test_a_key_for_orders_alone_switches_nothing_on(ring: Keyring) -> None:
    ring.put(replace(laptop(), rights=ADMIN), LINE)
    assert not ring.are_keys_needed

    ring.put(laptop(), LINE)
    assert ring.are_keys_needed


def test_a_file_may_have_keys_of_any_form(ring: Keyring) -> None:
    ring.put(laptop(), LINE)
    ring.use_file([of_file()])

    assert ring.find(CHOSEN) == of_file()
    assert ring.find(TEXT) == laptop()
    assert {key.name for key in ring} == {"laptop", "chat-ui"}
    assert ring.is_of_file(of_file())
    assert not ring.is_of_file(laptop())


def test_a_text_that_is_longer_than_any_key_is_not_even_digested(
    ring: Keyring,
) -> None:
    longest, longer = "x" * LONGEST_TEXT, "x" * (LONGEST_TEXT + 1)
    ring.use_file([of_file(longest), replace(of_file(longer), name="b")])

    assert ring.find(longest) is not None
    assert ring.find(longer) is None


def test_a_key_that_left_the_file_or_has_another_text_there_ends(
    ring: Keyring, ended: list[str]
) -> None:
    other = replace(of_file("another-text"), id=KeyId("11111111"), name="stays")
    ring.use_file([of_file(), other])
    ring.use_file([replace(of_file(), rights=Rights(rpm=3)), other])
    assert ended == []

    ring.use_file([of_file("a-new-text"), other])
    assert ended == ["chat-ui"]
    ring.use_file([other])

    assert ended == ["chat-ui", "chat-ui"]
    assert ring.find("a-new-text") is None
    assert ring.find("another-text") == other


def test_keys_are_listed_in_the_order_of_their_names_as_they_come_and_go(
    clock: SetClock,
) -> None:
    store = MemoryStore()
    for number in (3, 1, 2):
        key = Key(KeyId(f"{number:08x}"), f"k{number}", bytes(32))
        store.put_key(key, LINE)
    ring = Keyring(store, clock)
    ring.put(laptop(), LINE)
    ring.put(replace(laptop(), is_disabled=True), LINE)
    ring.use_file([of_file()])
    ring.remove(Key(KeyId("00000002"), "k2", bytes(32)), LINE)

    def names(after: str, most: int) -> list[str]:
        return [key.name for key in ring.page(after, most)]

    assert names("", 9) == ["chat-ui", "k1", "k3", "laptop"]
    assert names("chat-ui", 2) == ["k1", "k3"]
    assert names("k2", 9) == ["k3", "laptop"]
    assert names("laptop", 9) == []
    ring.use_file([])
    assert names("", 1) == ["k1"]


def test_finding_a_key_takes_as_long_among_many(clock: SetClock) -> None:
    def seconds(count: int) -> float:
        store = MemoryStore()
        for number in range(count):
            key_id = KeyId(f"{number:08x}")
            store.put_key(Key(key_id, f"k{number}", bytes(32)), LINE)
        store.put_key(laptop(), LINE)
        ring = Keyring(store, clock)
        return min(timeit.repeat(lambda: ring.find(TEXT), number=200, repeat=5))

    assert seconds(10_000) < 20 * seconds(1)


def test_a_name_or_id_of_a_stored_key_is_not_free_for_the_file(ring: Keyring) -> None:
    ring.put(laptop(), LINE)
    named = of_file(name="laptop")
    same_id = replace(of_file("another", "desk"), id=KeyId("0123abcd"))
    same_text = of_file(TEXT)

    assert ring.use_file([named, same_id, same_text]) == (named, same_id, same_text)
    assert ring.find(CHOSEN) is None
    assert ring.find(TEXT) == laptop()
    assert ring.use_file([of_file(), same_id]) == (same_id,)
    assert ring.find(CHOSEN) == of_file()


def test_the_first_key_for_clients_is_told_once() -> None:
    told: list[str] = []
    keyring = Keyring(MemoryStore(), SetClock())
    keyring.on_needed(lambda: told.append("needed"))
    keyring.put(ADMIN_ALONE.key, LINE)
    assert told == []
    keyring.put(GOOD.key, LINE)
    keyring.put(READER.key, LINE)
    keyring.need_keys()
    assert told == ["needed"]
