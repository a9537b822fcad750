"""Where the bound sockets are, as the kernel has them."""

from ollama_proxy.base.parsers import Listen
from ollama_proxy.cli.bound_addresses import BoundAddresses
from ollama_proxy.server.binding import bind


def test_a_port_that_the_kernel_chose_is_known() -> None:
    bound = BoundAddresses(
        bind(Listen(host="127.0.0.1", port=0)),
        hub=bind(Listen(host="127.0.0.1", port=0)),
    )
    try:
        listening = bound.listening
    finally:
        bound.close()

    assert [host for host, _ in listening] == ["127.0.0.1", "127.0.0.1"]
    assert all(port > 0 for _, port in listening)
