"""The file of keys: what it may have, and every fault in one sentence without a key."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_proxy.core.access.keys import KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.gateway.key_file import (
    MOST_BYTES,
    MOST_KEYS,
    FileKeys,
    KeyFileError,
    read_key_file,
    text_fault,
)
from ollama_proxy.gateway.key_text import digest_of, key_text
from ollama_proxy.gateway.key_words import Dates
from tests.gateway.rig import SetClock

OURS = key_text(KeyId("0123abcd"), bytes(range(32)))
HEX = "00112233445566778899aabbccddeeff"
SECRETS = [OURS, HEX, "hunter2", "correct horse battery staple"]


def written(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "keys.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def read(folder: Path, text: str | bytes, mode: int = 0o600) -> FileKeys:
    return read_key_file(
        written(folder, text, mode), Dates(SetClock(), is_of_file=True)
    )


def fault(folder: Path, text: str | bytes, mode: int = 0o600) -> str:
    with pytest.raises(KeyFileError) as told:
        read(folder, text, mode)
    sentence = str(told.value)
    assert "\n" not in sentence
    assert str(folder / "keys.toml") in sentence
    assert not any(secret in sentence for secret in SECRETS)
    return sentence


def test_keys_have_a_text_or_a_digest_and_the_words_of_the_options(
    tmp_path: Path,
) -> None:
    one, two, three = read(
        tmp_path,
        f"""
        [keys.laptop]
        key = "{OURS}"

        [keys.chat-ui]
        sha256 = "{digest_of(HEX).hex()}"
        models = ["llama3*"]
        routes = "chat"
        rpm = 60
        budget = ["5/day"]
        no_wake = true
        max_hold = "5m"
        expires = 2027-02-01

        [keys."old@home"]
        key = "{HEX}0"
        disabled = true
        expires = 2026-12-31
        """,
    ).keys

    assert (one.name, one.digest, one.rights) == ("laptop", digest_of(OURS), Rights())
    assert two.digest == digest_of(HEX)
    assert two.rights == Rights(
        models=("llama3*",),
        routes=frozenset({RouteClass.CHAT}),
        rpm=60,
        budget_day=5_000_000,
        may_wake=False,
        max_hold_s=300.0,
    )
    assert three.is_disabled
    assert three.standing(SetClock().now()) == "disabled"
    assert len({one.id, two.id, three.id}) == 3


def test_a_key_keeps_its_id_and_so_its_use_when_its_text_changes(
    tmp_path: Path,
) -> None:
    before = read(tmp_path, f'[keys.laptop]\nkey = "{HEX}"').keys[0]
    after = read(tmp_path, f'[keys.a]\nkey="{HEX}"\n[keys.laptop]\nkey = "{OURS}"').keys

    assert after[1].id == before.id


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty; write [keys.NAME]"),
        (" \n", "it is empty"),
        ("# nothing\n", "it has no key; write [keys.NAME]"),
        ("[keys]\n", "it has no key; write [keys.NAME]"),
        ("[keyz.a]\n", "it has other tables than [keys.NAME]"),
        (f'[keys.a]\nkey = "{HEX}"\n[pools.b]\n', "it has other tables"),
        ("[keys.a", "it is not TOML ("),
        (b"\xff\xfe", "it is not TOML (no UTF-8)"),
        ("a = " + "[" * 5000, "it is not TOML"),
        (f'[keys]\n{OURS} = "laptop"', "looks like a key, so it is no name"),
        (f'[keys]\nlaptop = "{HEX}"', "[keys.laptop] is no table"),
        ("[keys.a]\n", "[keys.a] needs one of key"),
        (f'[keys.a]\nkey = "{HEX}"\nsha256 = "00"', "[keys.a] needs one of key"),
        ('[keys.a]\nkey = "hunter2"', "[keys.a] key: it can be guessed: it has less"),
        ("[keys.a]\nkey = 7", "[keys.a] key: it has characters that no header"),
        ('[keys.a]\nkey = "correct horse battery staple"', "no header carries"),
        (f'[keys.a]\nkey = "{OURS[:-1]}"', "it begins like a key of ours and is none"),
        ('[keys.a]\nkey = "' + "ab" * 300 + '"', "it is longer than 512 characters"),
        ('[keys.a]\nsha256 = "hunter2"', "[keys.a] sha256: it is no SHA-256"),
        ("[keys.a]\nsha256 = 1", "[keys.a] sha256: it is no SHA-256"),
        (f'[keys."a b"]\nkey = "{HEX}"', "'a b' is no name for a key"),
        (f'[keys.a]\nkey = "{HEX}"\nrpm = 0', "[keys.a] rpm: '0' is not a whole"),
        (f'[keys.a]\nkey = "{HEX}"\nroutes = "x"', "[keys.a] routes: 'x' is no right"),
        (f'[keys.a]\nkey = "{HEX}"\nexpires = "30d"', "'30d' is not a date"),
        (f'[keys.a]\nkey = "{HEX}"\nsecret = 1', "[keys.a] secret: a key has no such"),
        (f'[keys.a]\nkey = "{HEX}"\ndisabled = "no"', "neither true nor false"),
        (
            f'[keys.a]\nkey = "{HEX}"\n[keys.b]\nsha256 = "{digest_of(HEX).hex()}"',
            "[keys.b] has the text of [keys.a]",
        ),
    ],
)
def test_a_file_with_a_fault_is_refused_in_one_sentence(
    tmp_path: Path, text: str | bytes, told: str
) -> None:
    assert told in fault(tmp_path, text)


def test_all_faults_are_told_at_once_up_to_a_few(tmp_path: Path) -> None:
    told = fault(tmp_path, "\n".join(f"[keys.k{number}]" for number in range(9)))

    assert "[keys.k4] needs" in told
    assert "[keys.k5]" not in told
    assert told.endswith("; and 4 more")


def test_too_many_bytes_and_too_many_keys_are_refused(tmp_path: Path) -> None:
    assert "more than 1 MiB" in fault(tmp_path, "#" * (MOST_BYTES + 1))
    tables = "\n".join(f"k{number}={{}}" for number in range(MOST_KEYS + 1))
    assert "it has 5001 keys; write at most 5000" in fault(
        tmp_path, "[keys]\n" + tables
    )


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o660])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    told = fault(tmp_path, f'[keys.a]\nkey = "{HEX}"', mode)

    assert f"others may write it (mode {mode:04o}); `chmod go-w` it" in told


def test_a_link_to_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    target = written(tmp_path, f'[keys.a]\nkey = "{HEX}"', 0o666)
    link = tmp_path / "link.toml"
    link.symlink_to(target)
    with pytest.raises(KeyFileError, match="others may write it"):
        read_key_file(link, Dates(SetClock()))


def test_plain_keys_that_everybody_reads_are_warned_of_with_the_mode_to_set(
    tmp_path: Path,
) -> None:
    plain = read(tmp_path, f'[keys.a]\nkey = "{HEX}"', 0o644)
    digest = f'[keys.a]\nsha256 = "{digest_of(HEX).hex()}"'

    assert "(mode 0644); `chmod 600` it, or write sha256" in plain.warning
    assert read(tmp_path, f'[keys.a]\nkey = "{HEX}"', 0o640).warning == ""
    assert read(tmp_path, digest, 0o644).warning == ""


def test_what_is_no_file_is_refused_and_waited_for_never(tmp_path: Path) -> None:
    pipe = tmp_path / "keys.toml"
    dates = Dates(SetClock())
    with pytest.raises(KeyFileError, match=r"can't be read \(No such file"):
        read_key_file(pipe, dates)
    os.mkfifo(pipe, 0o600)
    with pytest.raises(KeyFileError, match="is no regular file"):
        read_key_file(pipe, dates)
    with pytest.raises(KeyFileError, match="can't be used"):
        read_key_file(tmp_path, dates)


@pytest.mark.parametrize(
    "text",
    [
        OURS,
        HEX,
        HEX.upper(),
        "Qm9yZG9tLXByb3h5LXJhbmRvbQ",
        "correct-horse-battery-staple-and-more",
        "12345678901234567890123456789012345678901",
    ],
)
def test_a_long_text_is_a_key(text: str) -> None:
    assert text_fault(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "a" * 64,
        "abababababababababababababababababab",
        HEX[:-1],
        "Abcdefghij0123456789",
        "1234567890123456789012345678",
        "schlüssel-schlüssel-schlüssel-schlüssel",
        "opt_" + "A" * 43,
        "with blanks in it, and long enough to be a key",
    ],
)
def test_a_text_that_can_be_guessed_or_sent_by_no_header_is_no_key(text: str) -> None:
    assert text_fault(text) is not None


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_keys_or_a_fault(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = written(tmp_path_factory.getbasetemp(), raw)
    with pytest.raises(KeyFileError):
        read_key_file(path, Dates(SetClock()))
