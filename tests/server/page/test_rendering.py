"""The HTML of the page: well-formed, escaped, and without anything that runs."""

import base64
import hashlib
import itertools
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from ollama_proxy.server.page.login_page import login_page
from ollama_proxy.server.page.rendering import (
    CONTENT_SECURITY_POLICY,
    HEADERS,
    STYLE,
    html,
)
from ollama_proxy.server.page.view import Viewer, page_view
from tests.server.page.bodies import instance, offer, pool, status
from tests.server.page.html_reading import Page

HOSTILE = """<script>alert(1)</script>"><img src=x onerror=y>'&{{ 7*7 }}"""
NOBODY = Viewer()
AT = datetime(2026, 11, 29, 19, 0, 5, tzinfo=UTC)


def page(body: dict[str, Any], viewer: Viewer = NOBODY, *, still: bool = False) -> str:
    view = page_view(body, viewer)
    return html("page.html", view=view, at=AT, is_still=still).decode()


def poisoned(value: Any) -> Any:
    """Return a body in which every text but the known words is markup."""
    if isinstance(value, str):
        return HOSTILE + value
    if isinstance(value, dict):
        return {
            key: one if key in {"state", "provisioning_status"} else poisoned(one)
            for key, one in value.items()
        }
    return [poisoned(one) for one in value] if isinstance(value, list) else value


def full() -> dict[str, Any]:
    """Return a body in which everything is there."""
    told = {
        "client": "c",
        "key": "k",
        "agent": "a",
        "route": "r",
        "model": "m",
        "pool": "p",
        "since_s": 1.0,
        "state": "waiting",
    }
    starting = instance(
        state="starting", stage="pulling", progress=0.5, eta_s=9.0, error="late"
    )
    other = {
        "name": "n",
        "state": "s",
        "owner": "o",
        "price_per_hour": None,
        "command": "x",
    }
    pull = {"model": "m", "status": "pulling", "progress": 0.25, "followers": 1}
    shut = offer(name="b", state="off", reason="r", ends_in_s=1.0)
    return status(
        pool(instance(), starting, offers=[offer(), shut]),
        error="e",
        report="r",
        lockout={"message": "l", "ends_in_s": 1.0},
        gpu={"problem": "p"},
        keys_file={"problem": "p"},
        tls={"problem": "p"},
        access={"needs_key": False, "warning": "w"},
        lost_models=[{"model": "m", "reason": "r"}],
        others=[other],
        pulls=[pull],
        active=[told],
        launches_unserved=1,
        launch_limit=2,
        simulated=True,
        detail="d",
    )


def test_markup_in_any_value_is_text() -> None:
    viewer = Viewer(HOSTILE, has_session=True, is_admin=True)
    plain, hostile = Page(page(full(), viewer)), Page(page(poisoned(full()), viewer))

    assert [one.name for one in hostile.elements] == [
        one.name for one in plain.elements
    ]
    assert not hostile.all("script") + hostile.all("img")
    assert hostile.text.count(HOSTILE) > 30
    known = [sorted(one.attributes) for one in plain.elements]
    assert [sorted(one.attributes) for one in hostile.elements] == known


def test_markup_in_the_words_of_the_form_is_text() -> None:
    told = Page(login_page(401, HOSTILE).body.decode())
    assert told.one("p", role="alert").text == HOSTILE
    assert not told.all("script")


@pytest.mark.parametrize("still", [False, True])
def test_the_page_refreshes_itself_unless_it_is_told_not_to(*, still: bool) -> None:
    told = Page(page(status(), still=still))
    refreshes = told.all("meta", http_equiv="refresh")
    assert [one.attributes["content"] for one in refreshes] == ([] if still else ["5"])
    assert told.one("a", href="./" if still else "./?still")


def test_the_form_is_never_refreshed() -> None:
    told = Page(login_page(401, "no such key").body.decode())
    assert not told.all("meta", http_equiv="refresh")


def test_nothing_in_it_runs_or_is_loaded() -> None:
    for text in (page(full()), login_page().body.decode()):
        told = Page(text)
        for element in told.elements:
            assert element.name not in {"script", "iframe", "img", "object", "base"}
            names = set(element.attributes)
            assert not {one for one in names if one.startswith("on")} | (
                names & {"style", "src"}
            )
        links = [
            one.attributes["href"] for one in told.elements if "href" in one.attributes
        ]
        assert set(links) <= {"data:,", "./", "./?still", "login"}


def test_the_policy_takes_this_style_and_nothing_else() -> None:
    (style,) = re.findall(r"<style>(.*)</style>", page(full()), flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = dict(part.split(" ", 1) for part in CONTENT_SECURITY_POLICY.split("; "))

    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "img-src": "data:",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }


def test_it_can_be_found_one_s_way_in_with_a_keyboard_and_a_reader() -> None:
    told = Page(page(full(), Viewer("ann", has_session=True, is_admin=True)))

    assert told.one("html").attributes["lang"] == "en"
    assert len(told.all("main")) == len(told.all("h1")) == len(told.all("header")) == 1
    assert told.one("nav").attributes["aria-label"]
    ids = [one.attributes["id"] for one in told.elements if "id" in one.attributes]
    assert len(set(ids)) == len(ids)
    for section in told.all("section"):
        assert section.attributes["aria-labelledby"] in ids
    levels = [
        int(one.name[1]) for one in told.elements if re.fullmatch(r"h\d", one.name)
    ]
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert all(one.attributes["aria-label"] for one in told.all("progress"))
    assert len(told.all("caption")) == len(told.all("table")) == 2
    assert all(one.attributes["scope"] for one in told.all("th"))


def test_every_field_of_the_form_has_its_label() -> None:
    told = Page(login_page(401, "no such key").body.decode())
    field = told.one("input")
    assert told.one("label").attributes["for"] == field.attributes["id"] == "key"
    assert field.attributes["type"] == "password"
    for described in field.attributes["aria-describedby"].split():
        assert told.one("p", id=described)


def test_a_session_can_be_ended_and_none_is_offered_where_no_key_is_needed() -> None:
    named = Page(page(status(), Viewer("ann", has_session=True)))
    assert named.one("form").attributes == {"method": "post", "action": "logout"}
    free = status(access={"needs_key": False, "warning": None})
    assert Page(page(free)).one("a", href="login")
    assert not Page(page(free)).all("form")


def test_no_page_is_kept_by_anything_in_between() -> None:
    told = dict(HEADERS)
    assert told["Cache-Control"] == "no-store"
    assert told["X-Content-Type-Options"] == "nosniff"
    assert told["Referrer-Policy"] == "same-origin"


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4
        for one in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_colour_of_text_has_the_contrast_of_wcag_aa() -> None:
    found = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", STYLE, flags=re.DOTALL)
    ]
    assert len(found) == 2  # light and dark
    for colours in found:
        grounds = [colours.pop(name) for name in ("page", "card")]
        colours.pop("line")
        for name, colour in colours.items():
            for ground in grounds:
                assert contrast(colour, ground) >= 4.5, (name, ground)
