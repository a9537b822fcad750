"""Behind which addresses a container's engine hides who connects."""

import ipaddress
from pathlib import Path

import pytest

from ollama_proxy.base.container_peers import default_gateways, is_in_container

ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth1\t0000000A\t0100000A\t0003\t0\t0\t0\t000000FF\t0\t0\t0
"""
V6 = f"""\
{"fd" + "0" * 30} 40 {"0" * 32} 00 {"0" * 32} 00000100 00000001 00000000 00000001 eth0
{"0" * 32} 00 {"0" * 32} 00 {"fd" + "0" * 29 + "1"} 00000400 00000003 00000000 0000 eth0
{"0" * 32} 00 {"0" * 32} 00 {"0" * 32} ffffffff 00000001 00000000 00200200 lo
"""


def root_with(folder: Path, **files: str) -> Path:
    (folder / "proc/net").mkdir(parents=True)
    for name, text in files.items():
        (folder / "proc/net" / name).write_text(text)
    return folder


def test_the_gateways_of_both_families_are_found(tmp_path: Path) -> None:
    root = root_with(tmp_path, route=ROUTE, ipv6_route=V6)
    expected = map(ipaddress.ip_address, ["172.17.0.1", "fd00::1"])
    assert default_gateways(root) == frozenset(expected)


@pytest.mark.parametrize("text", ["", "x", "a b c d e f g h\n" * 3, "\x00\n" * 9,
                                  ROUTE.replace("010011AC", "nonsense"),
                                  ROUTE.replace("010011AC", "F" * 40)])  # fmt: skip
def test_a_table_that_cannot_be_read_has_none(text: str, tmp_path: Path) -> None:
    root = root_with(tmp_path, route=text, ipv6_route=text)
    assert default_gateways(root) == frozenset()
    assert default_gateways(tmp_path / "nowhere") == frozenset()


@pytest.mark.parametrize(
    "mark", [".dockerenv", "run/.containerenv", "run/secrets/kubernetes.io"]
)
def test_an_engine_leaves_a_mark(mark: str, tmp_path: Path) -> None:
    assert not is_in_container(tmp_path)
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mark).touch()
    assert is_in_container(tmp_path)
