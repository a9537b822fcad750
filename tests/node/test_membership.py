"""What asks the hub: its connection lasts from one beat to the next."""

from ollama_proxy.node.membership import KEPT_S, keyless_session
from ollama_proxy.node.settings import NodeSettings


async def test_a_connection_to_the_hub_outlasts_two_beats() -> None:
    interval_s = NodeSettings.model_fields["heartbeat_interval"].default
    async with keyless_session() as session:
        assert session.connector is not None
        kept_s = session.connector._keepalive_timeout

    assert kept_s == KEPT_S
    assert 2 * 1.1 * interval_s < KEPT_S
