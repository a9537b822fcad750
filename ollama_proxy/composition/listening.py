"""Take connections on every bound socket, with the certificate that each shows."""

import socket
from typing import TYPE_CHECKING

from ollama_proxy.server.hub.hub_tls import HubTls
from ollama_proxy.server.listener import Runner
from ollama_proxy.server.tls.watch import ServerCertificate

if TYPE_CHECKING:
    from ollama_proxy.composition.hub import Hub


async def listen_on(
    runner: Runner,
    main: socket.socket,
    second: socket.socket | None,
    *,
    certificate: ServerCertificate | None,
    hub: "Hub | None",
    backlog: int,
) -> None:
    """Take requests on the proxy's address, and on that of the hub, ``second``.

    The hub's takes TLS in any case, by the hub's own certificate; and plain HTTP, which
    former agents speak, unless the owner set a certificate.
    """
    context = certificate.context if certificate is not None else None
    hub_context = context
    if hub is not None:
        hub_context = HubTls(hub.authority.hub_context, context).context
        context = hub_context if certificate is not None else None
    await runner.listen(main, backlog=backlog, context=context)
    if second is not None:
        await runner.listen(
            second,
            backlog=backlog,
            context=hub_context,
            takes_plain=certificate is None,
            is_hub=True,
        )
