"""What agents are refused fills no log."""

from ollama_proxy.server.aiohttp.refused_agents import LINES_A_MINUTE, RefusedAgents


def lines_of(refused: RefusedAgents, path: str, status: int, at: float) -> int:
    return sum(not refused.is_too_many(path, status, at) for _ in range(1000))


def test_refusals_get_a_minute_of_lines_at_once_and_then_one_a_second() -> None:
    refused = RefusedAgents()

    assert lines_of(refused, "/nodes/heartbeat", 403, 1000.0) == LINES_A_MINUTE
    assert lines_of(refused, "/nodes/join", 403, 1001.0) == 1
    assert lines_of(refused, "/nodes/heartbeat", 0, 1003.0) == 2


def test_what_is_taken_and_what_others_send_is_not_limited() -> None:
    refused = RefusedAgents()

    assert lines_of(refused, "/nodes/join", 200, 1000.0) == 1000
    assert lines_of(refused, "/api/chat", 401, 1000.0) == 1000
    assert lines_of(refused, "/nodes/heartbeat", 403, 1000.0) == LINES_A_MINUTE
