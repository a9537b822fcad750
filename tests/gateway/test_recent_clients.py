"""Which clients asked without a key in the last hour."""

from ollama_proxy.gateway.recent_clients import (
    LATELY_S,
    MOST_CLIENTS,
    RecentClient,
    RecentClients,
)
from tests.gateway.rig import SetClock


def test_clients_are_told_by_address_and_agent_the_last_one_first() -> None:
    clock = SetClock()
    clients = RecentClients(clock)
    clients.note("10.0.0.7", "curl/8.5")
    clock.at += 60.0
    clients.note("10.0.0.8", "")
    clients.note("10.0.0.7", "ollama/0.33")
    clock.at += 30.0
    clients.note("10.0.0.7", "curl/8.5")

    assert clients.seen() == [
        RecentClient("10.0.0.7", "curl/8.5", 0.0),
        RecentClient("10.0.0.7", "ollama/0.33", 30.0),
        RecentClient("10.0.0.8", "", 30.0),
    ]
    assert clients.watched_s == 90.0


def test_clients_of_long_ago_are_left_out() -> None:
    clock = SetClock()
    clients = RecentClients(clock)
    clients.note("10.0.0.7", "curl/8.5")
    clock.at += LATELY_S - 1.0
    assert len(clients.seen()) == 1
    clock.at += 1.0

    assert clients.seen() == []
    assert clients.watched_s == LATELY_S


def test_their_memory_is_bounded_whatever_clients_send() -> None:
    clock = SetClock()
    clients = RecentClients(clock)
    clients.note("10.0.0.6", "stays")
    for number in range(MOST_CLIENTS * 2):
        clients.note("10.0.0.7", f"{number}" + "x" * 100_000)
        clients.note("10.0.0.6", "stays")
    seen = clients.seen()

    assert len(seen) == MOST_CLIENTS
    assert seen[0].user_agent == "stays"
    assert all(len(one.user_agent) <= 120 for one in seen)


def test_a_key_that_a_client_puts_into_its_agent_is_hidden() -> None:
    clients = RecentClients(SetClock())
    clients.note("10.0.0.7", "curl op_0a1b2c3d_secret")
    assert clients.seen()[0].user_agent == "curl op_…"
