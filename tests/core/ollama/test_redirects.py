"""Paths that are not quite right are sent where Ollama sends them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.core.ollama.redirects import clean_path, redirect_of


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("/api/tags", "/api/tags"),
        ("/api/tags/", "/api/tags/"),
        ("//api///tags//", "/api/tags/"),
        ("/api/./tags/.", "/api/tags"),
        ("/../api/x/../tags", "/api/tags"),
        ("//", "/"),
        ("/..", "/"),
        ("/.well-known/x", "/.well-known/x"),
    ],
)
def test_a_path_is_cleaned_as_gos_mux_cleans_it(path: str, cleaned: str) -> None:
    assert clean_path(path) == cleaned


@given(st.text("/.a", max_size=12))
def test_a_clean_path_stays_as_it_is(path: str) -> None:
    once = clean_path(f"/{path}")

    assert clean_path(once) == once


@pytest.mark.parametrize(
    ("method", "target", "status", "location"),
    [
        ("GET", "/api/tags/?a=b", 301, "/api/tags?a=b"),
        ("POST", "/api/show/", 307, "/api/show"),
        ("GET", "//api/tags/", 307, "/api/tags/"),
        ("GET", "//v1/models/a%20b", 307, "/v1/models/a%2520b"),
        ("GET", "/v1/models/a%20b/", 301, "/v1/models/a%20b"),
    ],
)
def test_where_a_path_leads(
    method: str, target: str, status: int, location: str
) -> None:
    to = redirect_of(method, target)

    assert (to.status, to.location) == (status, location)


def test_a_browser_is_shown_a_page_that_holds_no_markup_of_the_client() -> None:
    page = redirect_of("GET", '/api/tags/?<script>"').html

    assert page == (
        '<a href="/api/tags?&lt;script&gt;&#34;">Moved Permanently</a>.\n\n'
    )
    assert redirect_of("POST", "/api/show/").html is None


def test_no_location_leads_to_another_host() -> None:
    for path in ("//evil.example/", "/\\evil.example/", "///evil.example"):
        location = redirect_of("GET", path).location
        assert location.startswith("/")
        assert not location.startswith(("//", "/\\"))
