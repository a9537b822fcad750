"""Headers are forwarded unchanged, except those of one connection."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from ollama_proxy.core.http.headers import (
    GUARD_HEADER,
    GUARD_TOKEN,
    for_client,
    for_upstream,
    media_type,
    preferred_wait_s,
)

HOP_BY_HOP = [
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
]


def test_what_proxy_and_guard_tell_each_other_is_not_for_clients() -> None:
    headers = CIMultiDict({GUARD_HEADER: "1", GUARD_TOKEN: "secret", "X-Kept": "y"})

    assert GUARD_HEADER not in for_client(headers)
    assert GUARD_TOKEN not in for_upstream(headers)


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_headers_are_dropped_in_any_case(name: str) -> None:
    headers = CIMultiDict({name.upper(): "x", "X-Kept": "y"})

    assert list(for_upstream(headers)) == ["X-Kept"]
    assert list(for_client(headers)) == ["X-Kept"]


def test_what_connection_names_is_dropped() -> None:
    headers = CIMultiDict({"Connection": "close, X-One", "x-one": "1", "X-Two": "2"})

    assert list(for_client(headers)) == ["X-Two"]


def test_the_instance_gets_its_own_host() -> None:
    headers = CIMultiDict({"Host": "me:11434", "Expect": "100-continue"})

    assert list(for_upstream(headers)) == []


@given(st.lists(st.tuples(st.sampled_from(["X-A", "x-a", "X-B"]), st.text("ab"))))
def test_everything_else_passes_in_order_and_as_often(
    pairs: list[tuple[str, str]],
) -> None:
    assert list(for_upstream(CIMultiDict(pairs)).items()) == pairs


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("wait=20", 20.0),
        ("respond-async, wait=5", 5.0),
        ("WAIT=7; foo=bar", 7.0),
        ('wait="9"', 9.0),
        ("wait=soon", None),
        ("wait=-1", None),
        ("return=minimal", None),
        ("", None),
    ],
)
def test_prefer_wait_is_read_as_rfc_7240_has_it(
    value: str, seconds: float | None
) -> None:
    assert preferred_wait_s(CIMultiDict({"Prefer": value})) == seconds


@pytest.mark.parametrize(
    ("told", "meant"),
    [("Text/Event-Stream; charset=utf-8", "text/event-stream"), ("a/b ;c", "a/b")],
)
def test_a_type_is_told_without_its_parameters(told: str, meant: str) -> None:
    assert media_type(CIMultiDict({"content-type": told})) == meant
    assert media_type(CIMultiDict()) == ""


def test_a_hundred_large_types_are_not_kept() -> None:
    tracemalloc.start(1)
    try:
        for number in range(100):
            media_type(CIMultiDict({"Content-Type": f"a/b; {number}" + "c" * 500_000}))
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()


def test_the_name_of_a_pool_is_for_the_proxy_alone() -> None:
    sent = CIMultiDict({"x-OLLAMA-proxy-pool": "big", "X-Ollama-Proxy-Pools": "kept"})

    assert [*for_upstream(sent)] == ["X-Ollama-Proxy-Pools"]


def test_the_wish_for_another_node_is_for_the_proxy_alone() -> None:
    sent = CIMultiDict({"x-OLLAMA-proxy-retry": "always", "Retry": "kept"})

    assert [*for_upstream(sent)] == ["Retry"]


@pytest.mark.parametrize(
    "written", ["ollama_proxy_session=a", " ollama_proxy_session = a"]
)
def test_no_instance_sets_the_cookie_of_our_page(written: str) -> None:
    headers = CIMultiDict([("Set-Cookie", "lb=1; Path=/"), ("set-cookie", written)])

    assert for_client(headers).getall("Set-Cookie") == ["lb=1; Path=/"]
