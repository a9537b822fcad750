"""Return the name and the addresses of this machine, as the system has them."""

import socket

import psutil

from ollama_proxy.core.access.hosts import HostPolicy


def hosts_of_this_machine(allowed: tuple[str, ...] = ()) -> HostPolicy:
    """Return the rules for ``Host`` with this machine's own name and addresses.

    ``allowed``: more names.
    """
    found = psutil.net_if_addrs().values()
    addresses = {address.address for interface in found for address in interface}
    return HostPolicy(socket.gethostname(), frozenset(addresses), allowed)
