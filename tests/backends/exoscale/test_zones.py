"""A zone that there is none of is named at once, with those that there are."""

import pytest

from ollama_proxy.base.errors import BackendError, SpecError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Phase
from tests.backends.exoscale.rig import Rig

LAUNCH = LaunchId("l0123456789abcdef")


@pytest.mark.parametrize(
    "settings",
    [{"zone": "at-vie-9"}, {"fallback_zones": "de-fra-1,at-vie-9"}],
    ids=["first", "fall-back"],
)
async def test_an_unknown_zone_is_refused_before_anything_is_bought(
    rig: Rig, settings: dict[str, str]
) -> None:
    backend = rig.open(**settings)
    with pytest.raises(SpecError, match="'at-vie-9'; there are: at-vie-2, ch-gva-2"):
        await backend.start(LAUNCH)
    with pytest.raises(SpecError, match="EXOSCALE_ZONE"):
        await backend.owned()
    (found,) = await backend.check()
    await backend.stop(LAUNCH)
    seen = await backend.inspect(LAUNCH)
    await backend.aclose()

    assert (found.subject, found.ok) == ("zone", False)
    assert seen.phase is Phase.GONE
    assert rig.server.calls.count("list-zones") == 1
    assert rig.cloud.bought == 0


async def test_what_is_in_other_zones_is_named_all_the_same(rig: Rig) -> None:
    right = rig.open()
    await right.start(LAUNCH)
    wrong = rig.open(zone="at-vie-9")
    named = await wrong.owned()
    await right.stop(LAUNCH)
    for backend in (right, wrong):
        await backend.aclose()

    assert named == {LAUNCH}


async def test_a_zone_that_is_published_is_not_asked_about(rig: Rig) -> None:
    backend = rig.open()
    await backend.owned()
    await backend.aclose()

    assert "list-zones" not in rig.server.calls


@pytest.mark.parametrize("fault", ["403", "500", "lost-before", "html-502-after"])
async def test_where_nobody_says_which_zones_there_are_the_calls_have_to_tell(
    rig: Rig, fault: str
) -> None:
    rig.server.always["list-zones"] = fault
    backend = rig.open(zone="at-vie-9")
    with pytest.raises(BackendError) as raised:
        await backend.owned()
    await backend.aclose()

    assert not isinstance(raised.value, SpecError)


async def test_one_host_for_all_zones_is_not_asked(rig: Rig) -> None:
    fixed = rig.server.url.replace("{zone}", "at-vie-2")
    backend = rig.open(zone="at-vie-9", api_endpoint=fixed)
    await backend.owned()
    await backend.aclose()

    assert "list-zones" not in rig.server.calls
