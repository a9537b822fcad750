"""What the registry is told of the senders of beats."""

from ollama_proxy.hub.ports import Sender


def test_a_sender_has_a_key_if_that_of_a_node_was_shown() -> None:
    assert Sender("10.0.0.5", node_id="box").has_key
    assert not Sender("10.0.0.5").has_key
