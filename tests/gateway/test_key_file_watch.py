"""Keys of a file, taken again when it changes; the last good ones if it is spoilt."""

import shutil
from pathlib import Path

import pytest

from ollama_proxy.base.errors import StartupError, StoreError
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Key, KeyId, KeyStanding
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.gateway.key_file_watch import KeyFileWatch
from ollama_proxy.gateway.key_text import digest_of
from ollama_proxy.gateway.keyring import Keyring
from ollama_proxy.store.memory import MemoryStore
from tests.gateway.rig import FullStore, SetClock

ONE, TWO = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"
LINE = AuditLine(1.0, "", "", "key add")


class Rig:
    """A keyring with the keys of a file; the file may change."""

    def __init__(self, folder: Path, store: MemoryStore | None = None) -> None:
        self.path = folder / "keys.toml"
        self.clock = SetClock()
        self.store = store or MemoryStore()
        self.keyring = Keyring(self.store, self.clock)
        self.ended: list[str] = []
        self.keyring.on_ended(lambda key: self.ended.append(key.name))

    def write(self, text: str, mode: int = 0o600) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(mode)
        fresh.replace(self.path)

    def watch(self) -> KeyFileWatch:
        audit = Audit(self.store, self.clock)
        return KeyFileWatch(self.path, self.keyring, self.clock, audit)

    def takes(self, *texts: str) -> list[bool]:
        return [self.keyring.find(text) is not None for text in texts]


def table(name: str, text: str, more: str = "") -> str:
    return f'[keys.{name}]\nkey = "{text}"\n{more}\n'


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.write(table("laptop", ONE))
    return rig


async def settle(watch: KeyFileWatch) -> None:
    """Look twice, as a change is believed only when it has stayed."""
    await watch.look()
    await watch.look()


async def test_its_keys_are_taken_from_the_start_and_make_keys_needed(rig: Rig) -> None:
    watch = rig.watch()

    assert rig.takes(ONE, TWO) == [True, False]
    assert rig.keyring.are_keys_needed
    assert rig.store.are_keys_needed()
    assert watch.body() == {"path": str(rig.path), "keys": 1, "problem": None}


@pytest.mark.parametrize("text", ["", "[keys]", "[keys.a", table("a", "short")])
def test_a_file_that_is_empty_or_spoilt_at_the_start_refuses_it(
    rig: Rig, text: str
) -> None:
    rig.write(text)
    with pytest.raises(StartupError, match="OLLAMA_PROXY_KEYS_FILE can't be used"):
        rig.watch()


def test_a_file_that_is_missing_or_not_ours_to_trust_refuses_the_start(
    rig: Rig,
) -> None:
    rig.write(table("laptop", ONE), 0o666)
    with pytest.raises(StartupError, match="others may write it"):
        rig.watch()
    rig.path.unlink()
    with pytest.raises(StartupError, match="can't be read"):
        rig.watch()


async def test_a_changed_file_is_read_again_once_it_stays_as_it_is(rig: Rig) -> None:
    watch = rig.watch()
    rig.write(table("laptop", TWO))
    await watch.look()
    assert rig.takes(ONE, TWO) == [True, False]
    await watch.look()

    assert rig.takes(ONE, TWO) == [False, True]
    assert rig.ended == ["laptop"]


async def test_a_changed_file_leaves_a_line_of_the_audit(rig: Rig) -> None:
    rig.write(table("laptop", ONE) + table("gone", "x" * 3 + ONE))
    watch = rig.watch()
    assert rig.store.audit() == []
    rig.write(table("laptop", ONE, "rpm = 60") + table("desk", TWO))
    await settle(watch)
    line = rig.store.audit()[0]

    assert (line.action, line.target) == ("keys file", str(rig.path))
    assert line.detail == "added desk; changed laptop; removed gone"
    rig.path.touch()
    await settle(watch)
    assert rig.store.audit() == [line]


async def test_a_file_that_is_written_in_place_is_read_when_it_is_whole(
    rig: Rig,
) -> None:
    watch = rig.watch()
    with rig.path.open("w") as file:
        file.write(table("desk", TWO))
        file.flush()
        await watch.look()
        file.write(table("laptop", ONE))
    await watch.look()
    assert rig.takes(ONE, TWO) == [True, False]
    await watch.look()

    assert rig.takes(ONE, TWO) == [True, True]
    assert rig.ended == []


@pytest.mark.parametrize("spoil", ["text", "empty", "gone", "mode", "name"])
async def test_a_spoilt_file_leaves_the_last_good_keys_and_status_says_so(
    rig: Rig, spoil: str
) -> None:
    watch = rig.watch()
    match spoil:
        case "gone":
            rig.path.unlink()
        case "mode":
            rig.path.chmod(0o622)
        case _:
            bad = {"text": "[keys.a", "empty": "", "name": table("a", TWO, "rmp = 3")}
            rig.write(bad[spoil])
    await settle(watch)

    assert rig.takes(ONE, TWO) == [True, False]
    assert rig.ended == []
    assert watch.problem is not None
    assert watch.problem.endswith("; what it had before, 1 in number, stays valid")
    assert watch.body()["problem"] == watch.problem

    rig.write(table("laptop", TWO))
    await settle(watch)
    assert watch.body()["problem"] is None
    assert rig.takes(ONE, TWO) == [False, True]


async def test_a_key_that_is_disabled_in_the_file_ends(rig: Rig) -> None:
    watch = rig.watch()
    rig.write(table("laptop", ONE, "disabled = true"))
    await settle(watch)
    found = rig.keyring.find(ONE)

    assert found is not None
    assert rig.keyring.standing(found) is KeyStanding.DISABLED
    assert rig.ended == ["laptop"]


async def test_a_name_that_a_stored_key_has_is_told_until_it_is_free(rig: Rig) -> None:
    stored = Key(KeyId("0123abcd"), "laptop", digest_of("stored"))
    rig.keyring.put(stored, LINE)
    rig.write(table("laptop", ONE) + table("desk", TWO))
    watch = rig.watch()

    assert rig.takes(ONE, TWO) == [False, True]
    assert watch.problem is not None
    assert "stored keys have the same name or text: laptop; `olla" in watch.problem
    assert watch.body()["keys"] == 1

    rig.keyring.remove(stored, LINE)
    await watch.look()
    assert rig.takes(ONE, TWO) == [True, True]
    assert watch.body()["problem"] is None


async def test_a_link_that_is_turned_to_another_file_is_noticed(
    rig: Rig, tmp_path: Path
) -> None:
    """Kubernetes updates a secret so: `keys.toml -> ..data/keys.toml`."""
    first, second = tmp_path / "1.toml", tmp_path / "2.toml"
    shutil.move(rig.path, first)
    second.write_text(table("laptop", TWO))
    second.chmod(0o600)
    rig.path.symlink_to(first)
    watch = rig.watch()
    rig.path.unlink()
    rig.path.symlink_to(second)
    await settle(watch)

    assert rig.takes(ONE, TWO) == [False, True]


async def test_dates_are_read_again_when_the_machine_gets_its_date(rig: Rig) -> None:
    rig.write(table("laptop", ONE, "expires = 2027-01-16"))
    rig.clock.wall = lambda: rig.clock.at + 86_400.0  # type: ignore[method-assign]
    watch = rig.watch()
    found = rig.keyring.find(ONE)
    assert found is not None
    assert rig.keyring.standing(found) is KeyStanding.EXPIRED

    rig.clock.wall = lambda: rig.clock.at  # type: ignore[method-assign]
    await settle(watch)
    found = rig.keyring.find(ONE)

    assert found is not None
    assert rig.keyring.standing(found) is KeyStanding.VALID


def test_keys_are_needed_although_the_mark_cannot_be_stored(tmp_path: Path) -> None:
    class FullOfMarks(FullStore):
        def need_keys(self) -> None:
            raise StoreError("disk full")

    rig = Rig(tmp_path, FullOfMarks())
    rig.write(table("laptop", ONE))
    rig.watch()

    assert rig.keyring.are_keys_needed
