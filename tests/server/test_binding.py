"""Taking the listen address: on the same addresses as Go's ``net.Listen``."""

import contextlib
import errno
import socket
from collections.abc import Iterator

import psutil
import pytest

from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.listen_address import split_address
from ollama_proxy.base.parsers import Listen
from ollama_proxy.server.binding import bind, is_on_loopback
from tests.go_listen import FORMS, HAS_IPV6, Form

LAN = {"192.0.2.2": socket.AF_INET, "fd00::2": socket.AF_INET6}
"""The recording's addresses on a network, and of what family they are."""


@contextlib.contextmanager
def bound(host: str) -> Iterator[socket.socket]:
    """Listen on a free port of a host, as `split_address` returned it."""
    listening = bind(Listen(host=host, port=0))
    try:
        yield listening
    finally:
        listening.close()


def reaches(client: str, listening: socket.socket) -> bool:
    port = listening.getsockname()[1]
    try:
        socket.create_connection((client, port), timeout=2).close()
    except OSError:
        return False
    return True


def on_this_machine(recorded: str) -> str | None:
    """Return what stands here for an address of the recording, None if nothing does."""
    if recorded not in LAN:
        return recorded
    for addresses in psutil.net_if_addrs().values():
        for found in addresses:
            is_lan = not found.address.startswith(("127.", "::1", "fe80:"))
            if found.family == LAN[recorded] and is_lan:
                return str(found.address)
    return None


BOUND = [form for form in FORMS if form.family and not form.bad_port]


@pytest.mark.parametrize("form", BOUND, ids=str)
def test_it_is_bound_as_go_binds_it(form: Form) -> None:
    if form.family == "AF_INET6" and not HAS_IPV6:
        pytest.skip("this machine has no IPv6")
    with bound(split_address(form.form)[0]) as listening:
        is_v6 = listening.family == socket.AF_INET6
        v6only = is_v6 and listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        assert listening.family.name == form.family
        assert listening.getsockname()[0] == form.address
        assert bool(v6only) == form.v6only
        for recorded in ("127.0.0.1", "::1", *LAN):
            client = on_this_machine(recorded)
            is_reached = recorded in form.reached
            assert client is None or reaches(client, listening) == is_reached, client


def test_an_address_of_another_machine_is_refused_in_words() -> None:
    with pytest.raises(StartupError) as caught:
        bind(Listen(host="198.51.100.9", port=4321))

    assert str(caught.value) == (
        "can't listen on 198.51.100.9:4321 (Cannot assign requested address); set"
        " OLLAMA_HOST to an address of this machine, or 0.0.0.0"
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "127.0.0.1", "::1"])
def test_a_port_in_use_is_refused_however_it_is_written(host: str) -> None:
    with bound("") as listening:
        port = listening.getsockname()[1]
        with pytest.raises(StartupError) as caught:
            bind(Listen(host=host, port=port))

    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert str(caught.value) == (
        f"can't listen on {where} (Address already in use); stop what listens there,"
        " or set OLLAMA_HOST to another host:port"
    )


class NoIpv6(socket.socket):
    """A socket of a machine whose kernel has no IPv6, or which has it switched off."""

    fault = errno.EAFNOSUPPORT

    def __init__(self, family: int, kind: int) -> None:
        if family == socket.AF_INET6:
            raise OSError(self.fault, "no IPv6 here")
        super().__init__(family, kind)


@pytest.mark.parametrize("fault", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_every_address_is_those_of_ipv4_where_there_is_no_ipv6(
    monkeypatch: pytest.MonkeyPatch, host: str, fault: int
) -> None:
    monkeypatch.setattr(NoIpv6, "fault", fault)
    monkeypatch.setattr(socket, "socket", NoIpv6)
    with bound(host) as listening:
        assert listening.getsockname()[0] == "0.0.0.0"


def test_ipv6_that_was_asked_for_is_refused_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "socket", NoIpv6)
    with pytest.raises(StartupError) as caught:
        bind(Listen(host="::", port=4321))

    assert str(caught.value) == (
        "can't listen on [::]:4321 (no IPv6 here); this machine has no IPv6, so set"
        " OLLAMA_HOST to 0.0.0.0"
    )


def test_a_name_is_bound_at_its_first_ipv4_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.3")]
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *_, **__: [(family, 1, 6, "", (at, 0)) for family, at in answers],
    )
    with bound("both.example") as listening:
        assert listening.getsockname()[0] == "127.0.0.3"


def test_a_link_that_is_not_there_is_told() -> None:
    with pytest.raises(StartupError, match=r"'fe80::1%no0' can't be resolved \("):
        bind(Listen(host="fe80::1%no0", port=0))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("", False),
        ("::", False),
        ("0.0.0.0", False),
    ],
)
def test_what_only_this_machine_reaches_is_known(host: str, expected: bool) -> None:
    with bound(host) as listening:
        assert is_on_loopback(listening) is expected


def test_an_ipv4_address_on_an_ipv6_socket_is_on_loopback_too() -> None:
    with socket.socket(socket.AF_INET6) as mapped:
        mapped.bind(("::ffff:127.0.0.1", 0))
        assert is_on_loopback(mapped)
