"""A list is read to its end, wherever it begins, and its silence is no proof."""

from pathlib import Path

import pytest

from ollama_proxy.backends.base.provisioning_journal import SETTLE_S
from ollama_proxy.backends.ovh import paging
from ollama_proxy.backends.ovh.paging import ListError, read_list
from ollama_proxy.backends.ovh.rest import RestDriver
from ollama_proxy.base.errors import OutcomeUnknownError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.backends.ovh.rig import OWNER, ovh_rig
from tests.fakes.ovh.lists import Lists
from tests.fakes.ovh.server import AI_TOKEN

WAYS = {
    "pages count from 0": Lists(first=0),
    "pages count from 1": Lists(first=1),
    "from 0, by numbers alone": Lists(first=0, links="none"),
    "from 1, by numbers alone": Lists(first=1, links="none"),
    "links are paths": Lists(first=1, links="path"),
    "links are whole": Lists(first=0, links="absolute"),
    "the second page comes first": Lists(first=0, given=1),
    "the third page comes first": Lists(first=1, given=3, links="none"),
    "a page leads nowhere, once": Lists(
        first=1, lie="the other pages are not told", times=1
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
async def test_every_app_is_found_however_pages_count(
    tmp_path: Path, way: str, count: int
) -> None:
    async with ovh_rig(tmp_path) as rig:
        known = {rig.cloud.stranger().id for _ in range(count)}
        lists = WAYS[way]
        rig.server.lists = Lists(lists.first, lists.given, lists.links, lists.lie, 1)
        driver = RestDriver("GRA", url=f"{rig.server.url}/gra", token=AI_TOKEN)
        found = {app.id for app in await driver.apps()}
        await driver.aclose()

    assert found == known


REFUSED = {
    "one page lost": "shows 2 of 5: a page is missing",
    "a circle": "repeats|circle",
    "without an end": "more than 200 pages",
    "another host": "https://elsewhere.example, which is not http://127",
    "another port": "127.0.0.1:1, which is not",
    "another scheme": "ftp://127.0.0.1, which is not",
    "a host without a scheme": "http://elsewhere.example, which is not",
    "another path": "outside of OVH_AI_API_URL",
}


@pytest.mark.parametrize("lie", REFUSED)
async def test_a_list_that_can_not_be_read_to_its_end_is_no_list(
    tmp_path: Path, lie: str
) -> None:
    async with ovh_rig(tmp_path) as rig:
        for _ in range(5):
            rig.cloud.stranger()
        rig.server.lists = Lists(lie=lie)
        driver = RestDriver("GRA", url=f"{rig.server.url}/gra", token=AI_TOKEN)
        with pytest.raises(ListError, match=REFUSED[lie]):
            await driver.apps()
        await driver.aclose()


async def test_a_link_from_https_to_http_is_not_followed() -> None:
    asked = []

    async def ask(place: str) -> object:
        asked.append(place)
        link = "http://gra.ai.cloud.ovh.net/v1/app?page=1"
        return {"items": [{"id": "a"}], "metadata": {"links": {"next": link}}}

    with pytest.raises(ListError, match="the token is not sent there"):
        await read_list(
            ask, base="https://gra.ai.cloud.ovh.net", path="/v1/app", what="the list"
        )

    assert len(asked) == 1


@pytest.mark.parametrize(
    "link",
    [
        "https://gra.ai.cloud.ovh.net:443/v1/app?page=1",
        "HTTPS://GRA.ai.cloud.ovh.net/v1/app?page=1",
        "/v1/app?page=1",
        "app?page=1",
        "?page=1",
        "/v1/app/pages/1",
    ],
)
async def test_a_link_on_the_same_origin_is_followed(link: str) -> None:
    async def ask(place: str) -> object:
        links = {"next": link} if place.endswith("size=100") else {}
        return {"items": [{"id": place}], "metadata": {"links": links}}

    found = await read_list(
        ask, base="https://gra.ai.cloud.ovh.net", path="/v1/app", what="the list"
    )

    assert len(found) == 2


async def test_an_app_that_goes_while_pages_are_read_hides_none() -> None:
    pages = {
        "/v1/app?size=100": (["a", "b"], 3, "?page=1"),
        "/v1/app?page=1": ([], 2, None),
    }

    async def ask(place: str) -> object:
        items, total, link = pages.get(place, ([], 2, None))
        metadata = {"total": total, "links": {"next": link}}
        return {"items": [{"id": one} for one in items], "metadata": metadata}

    with pytest.raises(ListError, match="2 of 3"):
        await read_list(ask, base="https://a.example", path="/v1/app", what="the list")


async def test_a_list_names_no_secret_of_a_link() -> None:
    async def ask(_place: str) -> object:
        links = {"next": "https://user:secret@b.example/v1/app?token=secret"}
        return {"items": [], "metadata": {"links": links}}

    with pytest.raises(ListError) as caught:
        await read_list(ask, base="https://a.example", path="/v1/app", what="the list")

    assert "secret" not in str(caught.value)
    assert paging.MAX_PAGES <= 1000


LAUNCH, NEXT = LaunchId("l0123456789abcdef"), LaunchId("lfedcba9876543210")


@pytest.mark.parametrize("idle_action", ["stop", "delete"])
async def test_an_empty_list_does_not_hide_an_app_that_was_shown(
    tmp_path: Path, idle_action: str
) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open(idle_action=idle_action)
        await backend.start(LAUNCH)
        await backend.owned()
        rig.notes[OWNER].drop_note(LAUNCH)
        await backend.aclose()
        rig.server.lists = Lists(lie="empty")
        again = rig.open(idle_action=idle_action)
        owned = set(await again.owned())
        await again.stop(LAUNCH)
        seen = await again.inspect(LAUNCH)
        await again.aclose()

        assert (owned, seen.phase) == ({LAUNCH}, Phase.GONE)
        assert rig.cloud.paid == []


async def test_an_empty_list_does_not_hide_the_app_that_is_kept(tmp_path: Path) -> None:
    async with ovh_rig(tmp_path) as rig:
        backend = rig.open()
        await backend.start(LAUNCH)
        await backend.inspect(LAUNCH)
        await backend.stop(LAUNCH)
        await backend.inspect(LAUNCH)
        await backend.aclose()
        rig.server.lists = Lists(lie="empty")
        again = rig.open()
        await again.start(NEXT)
        await again.stop(NEXT)
        await again.aclose()

        assert rig.cloud.made == 1


async def test_a_lost_creation_is_not_repeated_for_a_list_that_is_empty_once(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path) as rig:
        rig.server.script["create"] = ["lost-after"]
        backend = rig.open()
        with pytest.raises(OutcomeUnknownError):
            await backend.start(LAUNCH)
        await backend.aclose()
        rig.clock.ahead_s += SETTLE_S + 1.0
        rig.server.lists = Lists(lie="empty", times=2)
        again = rig.open()
        with pytest.raises(OutcomeUnknownError):
            await again.start(LAUNCH)
        await again.start(LAUNCH)
        await again.stop(LAUNCH)
        await again.aclose()

        assert rig.cloud.made == 1
        assert rig.cloud.paid == []


async def test_a_launch_is_not_forgotten_for_a_list_that_is_empty_once(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path) as rig:
        rig.server.script["create"] = ["lost-after"]
        backend = rig.open()
        with pytest.raises(OutcomeUnknownError):
            await backend.start(LAUNCH)
        rig.clock.ahead_s += SETTLE_S + 1.0
        rig.server.lists = Lists(lie="empty", times=2)
        await backend.stop(LAUNCH)
        first = await backend.inspect(LAUNCH)
        await backend.stop(LAUNCH)
        second = await backend.inspect(LAUNCH)
        await backend.aclose()

        assert (first.phase, second.phase) == (Phase.PENDING, Phase.GONE)
        assert rig.cloud.paid == []


async def test_a_launch_whose_note_is_damaged_may_have_been_sent(
    tmp_path: Path,
) -> None:
    async with ovh_rig(tmp_path) as rig:
        await rig.open().aclose()
        rig.notes[OWNER].put_note(LAUNCH, b"{")
        rig.server.lists = Lists(lie="empty")
        backend = rig.open()
        with pytest.raises(OutcomeUnknownError):
            await backend.start(LAUNCH)
        await backend.aclose()

        assert rig.cloud.made == 0
