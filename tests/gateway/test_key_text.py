"""The text of a key: its form, its id, its digest."""

import hashlib

import pytest

from ollama_proxy.core.access.keys import KeyId
from ollama_proxy.gateway.key_text import (
    digest_of,
    hide_keys,
    key_id_of,
    key_text,
)

ID = KeyId("0a1b2c3d")
TEXT = key_text(ID, bytes(range(32)))


def test_a_text_begins_with_the_prefix_and_the_id() -> None:
    assert TEXT.startswith("op_0a1b2c3d_")
    assert len(TEXT) == len("op_0a1b2c3d_") + 43


def test_the_id_is_read_back_from_a_text() -> None:
    assert key_id_of(TEXT) == ID


@pytest.mark.parametrize(
    "text",
    ["", "op_", TEXT[:-1], TEXT + "A", TEXT + "\n", TEXT.upper(), "sk-" + TEXT, "op_é"],
)
def test_what_is_not_written_like_a_key_has_no_id(text: str) -> None:
    assert key_id_of(text) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"curl/8 ({TEXT})", "curl/8 (op_…)"),
        (f"{TEXT[:20]}.example", "op_….example"),
        ("Bearer opt_abc-_D", "Bearer opt_…"),
        ("laptop_1, develop_me and op", "laptop_1, develop_me and op"),
    ],
)
def test_keys_are_hidden_in_what_others_wrote(text: str, shown: str) -> None:
    assert hide_keys(text) == shown


def test_a_digest_is_of_its_own_text_alone() -> None:
    other = key_text(ID, bytes(32))

    assert digest_of(TEXT) == hashlib.sha256(TEXT.encode()).digest()
    assert digest_of(other) != digest_of(TEXT)


def test_a_text_that_is_no_utf_8_has_a_digest_too() -> None:
    assert digest_of("op_\udcff") != digest_of(TEXT)
