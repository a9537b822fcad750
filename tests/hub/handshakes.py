"""Handshakes of TLS in memory, for tests: no sockets."""

import ssl


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """Do a handshake; raises `ssl.SSLError` if the client refuses the server."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    left = [asking, answering]
    for _ in range(10):
        for side in list(left):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            left.remove(side)
        if not left:
            return
    raise AssertionError("the handshake has no end")
