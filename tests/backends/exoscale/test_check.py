"""The doctor for Exoscale: every cause by name, nothing bought."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from ollama_proxy.cli.doctor import examine
from ollama_proxy.config.loader import load_settings
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.backends.exoscale.rig import Rig
from tests.fakes.exoscale.server import KEY, SECRET


async def findings(rig: Rig, **settings: str) -> dict[str, tuple[bool, str]]:
    backend = rig.open(**settings)
    found = {one.subject: (one.ok, one.detail) for one in await backend.check()}
    await backend.aclose()
    assert rig.cloud.bought == 0
    return found


async def test_all_is_well(rig: Rig) -> None:
    rig.cloud.quotas = {"instance": (1, 20), "gpua5000": (0, 2)}
    found = await findings(rig, price_per_hour="1.34")

    assert all(ok for ok, _ in found.values()), found
    assert found["instance type"][1] == "gpua5000.small: 12 CPUs, 1 GPU(s)"
    assert found["quota"][1] == "instance 1 of 20, gpua5000 0 of 2"
    assert found["price"][1] == "1.34 per hour while it runs"


@pytest.mark.parametrize(
    ("arrange", "settings", "subject", "says"),
    [
        (
            lambda rig: rig.server.always.update({"list-instance-types": "403"}),
            {},
            "key",
            "operation in ['list-zones'",
        ),
        (
            lambda rig: rig.cloud.quotas.update({"gpua5000": (0, 0)}),
            {},
            "quota",
            "GPU quotas are 0 on a new organisation",
        ),
        (lambda _rig: None, {"zone": "de-fra-1"}, "instance type", "gpu3.small"),
        (lambda _rig: None, {"template": "None"}, "template and disk", "no template"),
        (
            lambda rig: rig.server.always.update({"list-security-groups": "403"}),
            {},
            "who may connect",
            "list-security-groups",
        ),
    ],
)
async def test_what_is_wrong_is_named(
    rig: Rig,
    arrange: Callable[[Rig], None],
    settings: dict[str, str],
    subject: str,
    says: str,
) -> None:
    arrange(rig)
    ok, detail = (await findings(rig, **settings))[subject]

    assert not ok
    assert says in detail


async def test_a_price_that_nobody_named_is_unknown(rig: Rig) -> None:
    assert (await findings(rig))["price"] == (True, "unknown")


@pytest.mark.parametrize(
    ("gib", "fits", "says"),
    [(60, True, "models 60.0 GiB"), (90, False, "room for 85"), (0, True, "not known")],
)
async def test_the_disk_is_compared_with_the_models(
    rig: Rig, tmp_path: Path, gib: int, fits: bool, says: str
) -> None:
    environment = {
        "EXOSCALE_API_KEY": KEY,
        "EXOSCALE_API_SECRET": SECRET,
        "EXOSCALE_API_ENDPOINT": rig.server.url,
        "OLLAMA_PROXY_STATE_DIR": str(tmp_path / "state"),
        "OLLAMA_MODEL": "big",
        "OLLAMA_HOST": "127.0.0.1:0",
    }
    if gib:
        store = SqliteStore(tmp_path / "state")
        tags = {"models": [{"name": "big:latest", "size": gib << 30}]}
        place = store.place("exoscale at-vie-2 Linux Ubuntu 24.04 LTS 64-bit")
        place.put_contents(Snapshot(msgspec.json.encode(tags), "0.33.0"))
        store.close()
    found = {one.subject: one for one in await examine(load_settings(environment))}

    assert found["disk and models"].ok is fits
    assert says in found["disk and models"].detail
