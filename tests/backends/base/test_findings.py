"""What a check found: one finding for each look, whatever another one found."""

from ollama_proxy.backends.base.findings import findings_of
from ollama_proxy.base.errors import SpecError
from ollama_proxy.fleet.backend import Finding


async def has_room() -> str:
    return "room in ams"


async def lacks_image() -> str:
    raise SpecError("there is no such image")


async def test_a_look_that_fails_does_not_end_the_others() -> None:
    found = await findings_of({"image": lacks_image, "room": has_room})

    assert found == [
        Finding("image", ok=False, detail="there is no such image"),
        Finding("room", ok=True, detail="room in ams"),
    ]
