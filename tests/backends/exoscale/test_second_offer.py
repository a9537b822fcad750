"""Two offers on the strict fake, the first in a zone without room: one held request."""

import asyncio
from pathlib import Path

from ollama_proxy.core.lifecycle.record import AT_REST
from ollama_proxy.fleet.offer_tag import OfferTag
from tests.backends.exoscale.rig import exoscale_rig
from tests.fakes.exoscale.cloud import Timing
from tests.proxy import generate, lines, running_proxy

SETTINGS = """
models = ["tiny"]
[offers.vienna]
backend = "exoscale"
zone = "at-vie-2"
[offers.frankfurt]
backend = "exoscale"
zone = "de-fra-1"
instance_type = "gpu3.small"
[pools.main]
models = ["*"]
offers = ["vienna", "frankfurt"]
idle_timeout = "1s"
"""


async def test_a_zone_without_room_is_left_for_the_next_within_one_held_request(
    tmp_path: Path,
) -> None:
    timing = Timing(operation_s=0.02, boot_s=0.1, address_s=0.05, leave_s=0.1)
    file = tmp_path / "ollama-proxy.toml"
    file.write_text(SETTINGS)
    async with exoscale_rig(tmp_path, timing) as rig:
        rig.cloud.full_zones = {"at-vie-2"}
        names = {"vienna", "frankfurt"}
        backends = {}
        for name, more in (
            ("vienna", {"zone": "at-vie-2"}),
            ("frankfurt", {"zone": "de-fra-1", "instance_type": "gpu3.small"}),
        ):
            rig.offer = OfferTag(
                name, frozenset(names - {name}), takes_leftovers=name == "vienna"
            )
            backends[name] = rig.open(**more)
        async with running_proxy(
            tmp_path / "proxy",
            file=file,
            backends=backends,
            clock=rig.clock,
            EXOSCALE_API_KEY="EXOa",
            EXOSCALE_API_SECRET="b",
        ) as proxy:
            async with proxy.session.post(
                f"{proxy.url}/api/generate",
                json=generate(),
                headers={"Prefer": "wait=60"},
            ) as reply:
                assert reply.status == 200
                said = lines(await reply.read())
            told = (await proxy.status())["pools"][0]
            pool = proxy.parts.pool
            served = {one["offer"] for one in told["instances"] if one["url"]}
            while any(c.record.state not in AT_REST for c in pool.controllers):
                await asyncio.sleep(0.02)

    assert said[-1]["done"]
    assert served == {"frankfurt"}
    vienna = next(one for one in told["offers"] if one["name"] == "vienna")
    assert vienna["state"] == "passed_over"
    assert rig.cloud.paid == []
