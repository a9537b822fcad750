"""How long a request may wait: by its client, the settings and its key."""

from pathlib import Path

import pytest
from multidict import CIMultiDict

from ollama_proxy.core.access.keys import NOBODY, Caller, Key, KeyId, Rights
from ollama_proxy.serving.hold_policy import HoldPolicy
from tests.fakes.callers import Callers, bearer
from tests.fakes.instance import InProcessBackend
from tests.proxy import generate, running_proxy

POLICY = HoldPolicy(hold_s=100.0, max_hold_s=600.0)


def caller(max_hold_s: float | None) -> Caller:
    return Caller("", Key(KeyId("0"), "x", b"", Rights(max_hold_s=max_hold_s)))


@pytest.mark.parametrize(
    ("who", "prefer", "granted_s"),
    [
        (NOBODY, "", 100.0),
        (NOBODY, "wait=9", 9.0),
        (NOBODY, "wait=9999", 600.0),
        (caller(None), "", 100.0),
        (caller(None), "wait=9999", 600.0),
        (caller(30.0), "", 30.0),
        (caller(30.0), "wait=9", 9.0),
        (caller(30.0), "wait=500", 30.0),
        (caller(300.0), "", 100.0),
        (caller(3000.0), "wait=9999", 600.0),
        (caller(0.0), "", 0.0),
        (caller(0.0), "wait=9", 0.0),
    ],
)
def test_the_shortest_of_what_a_key_the_settings_and_the_client_say_holds(
    who: Caller, prefer: str, granted_s: float
) -> None:
    headers = CIMultiDict({"Prefer": prefer} if prefer else {})
    assert POLICY.granted_s(headers, who) == granted_s


@pytest.mark.parametrize("way", ["true", "false"])
async def test_a_key_that_may_not_wait_gets_its_503_at_once_and_others_are_held(
    tmp_path: Path, way: str
) -> None:
    callers = Callers(hasty=Rights(max_hold_s=0.0), patient=Rights())
    async with running_proxy(
        tmp_path,
        backend=InProcessBackend(boot_s=1.0),
        hold=HoldPolicy(hold_s=60.0),
        identify=callers,
        OLLAMA_PROXY_FAST_PATH=way,
    ) as proxy:
        url, body = f"{proxy.url}/api/generate", generate(stream=False)
        async with proxy.session.post(url, json=body, headers=bearer("hasty")) as told:
            assert told.status == 503
        preferred = {**bearer("hasty"), "Prefer": "wait=60"}
        async with proxy.session.post(url, json=body, headers=preferred) as told:
            assert told.status == 503
            assert told.headers["Preference-Applied"] == "wait=0"
        asked = bearer("patient")
        async with proxy.session.post(url, json=body, headers=asked) as told:
            assert told.status == 200
