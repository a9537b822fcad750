"""Texts of node keys and join tokens."""

import pytest

from ollama_proxy.core.nodes.node_keys import (
    NodeKeyId,
    digest_of,
    is_it,
    is_of_nodes,
    join_token_text,
    letters,
    node_key_id_of,
    node_key_text,
    nonce_secret,
    read_join_token,
)

SECRET = bytes(range(32))
PRINT = letters(bytes(32))
KEY = node_key_text(NodeKeyId("0123456789abcdef"), SECRET)


@pytest.mark.parametrize("fingerprint", ["", PRINT])
def test_a_token_is_read_as_it_was_made(fingerprint: str) -> None:
    text = join_token_text("0123abcd", SECRET, fingerprint)
    given = read_join_token(text)
    assert given is not None
    assert (given.id, given.fingerprint) == ("0123abcd", fingerprint)
    assert text.startswith(given.sent)
    assert PRINT not in given.sent
    assert letters(SECRET) not in repr(given)


@pytest.mark.parametrize(
    "text",
    ["", "opj_0123abcd", KEY, f"opj_0123abcd_{PRINT}.", f"opj_0123abcd_{PRINT}\n",
     f"opj_0123ABCD_{PRINT}", f"opj_0123abcd_{PRINT}.{PRINT}.{PRINT}"],
)  # fmt: skip
def test_other_texts_are_no_tokens(text: str) -> None:
    assert read_join_token(text) is None


def test_a_key_names_itself_and_nothing_else_does() -> None:
    assert node_key_id_of(KEY) == "0123456789abcdef"
    for text in ("", KEY[:-1], f"{KEY} ", KEY.upper(), KEY.replace("opn", "op")):
        assert node_key_id_of(text) is None


def test_a_text_is_known_by_its_digest() -> None:
    assert is_it(KEY, digest_of(KEY))
    assert not is_it(f"{KEY}x", digest_of(KEY))
    assert not is_it("\udcff", digest_of(KEY))


def test_a_secret_of_nodes_is_known_by_its_beginning() -> None:
    assert is_of_nodes(KEY)
    assert is_of_nodes(join_token_text("0123abcd", SECRET, ""))
    for text in ("", "op_12345678_abc", "opt_abc", "opn", f" {KEY}"):
        assert not is_of_nodes(text)


def test_the_secret_of_nonces_tells_nothing_of_the_digest() -> None:
    digest = digest_of(KEY)
    assert nonce_secret(digest) != digest
    assert nonce_secret(digest) != nonce_secret(digest_of("x"))
