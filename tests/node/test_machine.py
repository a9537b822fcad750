"""What the machine is busy with, as its own programs say it."""

import socket
import sys

from ollama_proxy.node.machine import (
    Gpu,
    GpuMeter,
    measure_load,
    own_address,
    read_gpus,
)


def test_the_load_is_a_share() -> None:
    load = measure_load()

    assert 0 <= load.cpu <= 1
    assert 0 < load.memory <= 1


def test_cards_are_read_and_what_is_not_available_is_unknown() -> None:
    lines = "37, 1024, 24576, NVIDIA A5000, 24 GB\n[N/A], [N/A], 8192, T4\n"

    assert read_gpus(lines) == [
        Gpu("NVIDIA A5000, 24 GB", 0.37, 1 << 30, 24 << 30),
        Gpu("T4", None, None, 8 << 30),
    ]
    assert read_gpus("No devices were found\n") == []


async def test_a_machine_without_the_program_has_no_cards() -> None:
    assert await GpuMeter(("there-is-no-such-program",)).measure() == []


async def test_a_program_that_fails_has_no_cards() -> None:
    assert await GpuMeter(("sh", "-c", "echo 1, 2, 3, a; exit 9")).measure() == []


async def test_a_program_that_hangs_is_given_up() -> None:
    sleeps = (sys.executable, "-c", "import time; time.sleep(60)")

    assert await GpuMeter(sleeps, limit_s=0.1).measure() == []


def test_the_own_address_is_that_on_the_way_to_the_hub() -> None:
    assert own_address(socket.AF_INET, "127.0.0.1") == "127.0.0.1"
    assert own_address(socket.AF_INET6, None) is None
