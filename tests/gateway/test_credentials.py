"""Where a key may stand in a request, and what of it an instance gets."""

import base64
import itertools

import pytest

from ollama_proxy.core.access.facts import SentField
from ollama_proxy.gateway.credentials import (
    Credential,
    credential_of,
    lone_key,
    without_credentials,
)

KEY = f"op_0123abcd_{'k' * 43}"
OTHER = f"op_89abcdef_{'k' * 43}"
TOKEN = f"opt_{'t' * 43}"
SESSION = "ollama_proxy_session"


def basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


@pytest.mark.parametrize(
    "field",
    [
        ("authorization", f"Bearer {KEY}"),
        ("authorization", f"bearer   {KEY}  "),
        ("x-api-key", KEY),
        ("authorization", basic(f"anyone:{KEY}")),
        ("authorization", basic(f":{KEY}")),
        ("authorization", basic(f"u:{KEY}").rstrip("=")),
        ("authorization", basic(f"üser:{KEY}").replace("Basic", "BASIC")),
    ],
)
def test_a_key_is_found_where_it_may_stand(field: SentField) -> None:
    assert credential_of([field]) == Credential(KEY)


@pytest.mark.parametrize(
    "sent",
    [
        [("authorization", f"Bearer {KEY}")],
        [("authorization", f"Bearer {KEY} \t")],
        [("authorization", "Bearer op_")],
    ],
)
def test_a_lone_bearer_token_of_ours_is_found_as_any_key_is(
    sent: list[SentField],
) -> None:
    assert lone_key(sent) == credential_of(sent).text


@pytest.mark.parametrize(
    "sent",
    [
        [],
        [("authorization", f"Bearer {TOKEN}")],
        [("authorization", f"bearer {KEY}")],
        [("x-api-key", f"Bearer {KEY}")],
        [("cookie", f"Bearer {KEY}")],
        [("authorization", f"Bearer {KEY}"), ("x-api-key", OTHER)],
        [("authorization", f"Bearer {KEY}"), ("cookie", f"{SESSION}=s")],
    ],
)
def test_what_else_a_request_shows_is_left_to_the_whole_look(
    sent: list[SentField],
) -> None:
    assert lone_key(sent) == ""


@pytest.mark.parametrize(
    "field",
    [
        ("authorization", ""),
        ("authorization", "Bearer"),
        ("authorization", "Bearer  "),
        ("authorization", KEY),
        ("authorization", f"Digest {KEY}"),
        ("authorization", "Basic"),
        ("authorization", "Basic \xff\xff"),
        ("authorization", basic(f"{KEY}:")),
        ("authorization", basic("no colon")),
        ("x-api-key", "  "),
        ("cookie", f"key={KEY}"),
        ("cookie", f"x{SESSION}=1"),
        ("cookie", SESSION),
        ("cookie", f"{SESSION}="),
    ],
)
def test_it_is_found_nowhere_else(field: SentField) -> None:
    assert credential_of([field]) == Credential()


def test_a_session_counts_only_without_a_key() -> None:
    cookie = ("cookie", f"a=b; {SESSION}=abc; c=d")
    assert credential_of([cookie]) == Credential(session="abc")
    key = ("x-api-key", OTHER)
    assert credential_of([cookie, key]) == Credential(OTHER)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ([f"Bearer {KEY}", f"Bearer {KEY}"], Credential(KEY)),
        ([f"Bearer {KEY}", f"Bearer {OTHER}"], Credential(is_ambiguous=True)),
        ([f"Bearer {KEY}", f"Bearer {TOKEN}"], Credential(is_ambiguous=True)),
        ([f"Bearer {KEY}", "Bearer ollama"], Credential(KEY)),
        ([f"Bearer {KEY}", basic(f"u:{OTHER}")], Credential(is_ambiguous=True)),
        ([f"Bearer {KEY}", basic("u:p")], Credential(KEY)),
        (["Bearer a", "Bearer b"], Credential(is_ambiguous=True)),
        (["Bearer a", "Bearer"], Credential("a")),
    ],
)
def test_of_several_keys_none_is_chosen_by_its_place(
    fields: list[str], found: Credential
) -> None:
    for order in itertools.permutations(fields):
        assert credential_of([("authorization", one) for one in order]) == found


def test_two_sessions_are_none() -> None:
    twice = f"{SESSION}=a; {SESSION}=b"
    assert credential_of([("cookie", twice)]).is_ambiguous
    apart = [("cookie", f"{SESSION}=a"), ("cookie", f"{SESSION}=b")]
    assert credential_of(apart).is_ambiguous


def test_two_headers_may_have_the_same_key() -> None:
    fields = [("x-api-key", KEY), ("authorization", f"Bearer {KEY}")]
    assert credential_of(fields) == Credential(KEY)


@pytest.mark.parametrize(
    "field",
    [
        ("Authorization", "Bearer their-own"),
        ("Authorization", basic("user:password")),
        ("X-Api-Key", "sk-theirs"),
        ("AUTHORIZATION", "Negotiate abc=="),
    ],
)
def test_foreign_credentials_pass_unless_requests_need_a_key(field: SentField) -> None:
    around = [("A", "1"), field, ("B", "2")]
    assert without_credentials(around, hides=False) == around
    assert without_credentials(around, hides=True) == [("A", "1"), ("B", "2")]


@pytest.mark.parametrize(
    "field",
    [
        ("Authorization", f"Bearer {KEY}"),
        ("authorization", f"bearer \t {KEY}x"),
        ("Authorization", f"Bearer {TOKEN}"),
        ("Authorization", KEY),
        ("Authorization", f"Digest {KEY}"),
        ("Authorization", "Bearer op_"),
        ("Authorization", basic(f"user:{KEY}")),
        ("Authorization", basic(f"user:{TOKEN}")),
        ("Authorization", basic(f"{KEY}:")),
        ("Authorization", basic(KEY)),
        ("X-API-Key", KEY),
        ("x-api-key", f"  {TOKEN}"),
        ("Cookie", f"{SESSION}=abc"),
        ("Cookie", f" {SESSION} = abc ;"),
    ],
)
@pytest.mark.parametrize("hides", [False, True])
def test_what_is_ours_never_passes(field: SentField, *, hides: bool) -> None:
    kept = without_credentials([field, ("B", "2")], hides=hides)
    assert [one for one in kept if one[1].strip(" ;")] == [("B", "2")]


@pytest.mark.parametrize("hides", [False, True])
def test_other_cookies_pass_unchanged(*, hides: bool) -> None:
    theirs = [("Cookie", "a=1;b=2; c")]
    assert without_credentials(theirs, hides=hides) == theirs
    mixed = [("Cookie", f"a=1; {SESSION}=x;b=2")]
    assert without_credentials(mixed, hides=hides) == [("Cookie", "a=1;b=2")]
