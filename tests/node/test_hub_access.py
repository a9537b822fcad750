"""The hub is known by its token, and learns by a nonce who answers."""

import pytest

from ollama_proxy.core.nodes.node_keys import digest_of, nonce_proof
from ollama_proxy.node.hub_access import HubAccess

SECRET = b"s" * 32
ACCESS = HubAccess(digest_of("opt-hub-token"), SECRET)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_hub_is_known_by_its_token(scheme: str) -> None:
    assert ACCESS.is_hub(f"{scheme} opt-hub-token")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer opt-hub-toke",
        "Bearer opt-hub-token2",
        "Bearer OPT-HUB-TOKEN",
        "Basic opt-hub-token",
        "opt-hub-token",
        "Bearer \udcff\udcfe",
        "Bearer ü",
    ],
)
def test_nobody_else_is_the_hub(authorization: str) -> None:
    assert not ACCESS.is_hub(authorization)


def test_a_nonce_is_answered_by_whoever_has_the_secret() -> None:
    nonce = "abcdefghijklmnop-_09"

    assert ACCESS.proof(nonce) == nonce_proof(SECRET, nonce)
    assert ACCESS.proof(nonce) != nonce_proof(b"t" * 32, nonce)


@pytest.mark.parametrize("nonce", ["", "short", "a" * 129, "a" * 16 + "\n", "ä" * 16])
def test_a_strange_nonce_gets_no_answer(nonce: str) -> None:
    assert ACCESS.proof(nonce) is None


def test_the_secrets_are_in_no_repr() -> None:
    assert repr(ACCESS) == "HubAccess()"
