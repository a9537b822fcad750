"""The listen address: read as Ollama reads it, whatever form it has."""

import ipaddress

import pytest

from ollama_proxy.base.listen_address import client_host, client_url, split_address
from tests.go_listen import FORMS, Form


def canonical(host: str) -> str:
    """Return a literal address without the many ways to write it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


@pytest.mark.parametrize("form", [form for form in FORMS if form.is_read], ids=str)
def test_it_is_read_as_ollama_reads_it(form: Form) -> None:
    assert split_address(form.form) == (canonical(form.host), form.port)


@pytest.mark.parametrize("form", [form for form in FORMS if form.bad_port], ids=str)
def test_a_port_that_can_not_be_is_refused(form: Form) -> None:
    """The one difference: Ollama listens on another port, and warns in its log."""
    with pytest.raises(ValueError, match="has no valid port; write host:port"):
        split_address(form.form)


@pytest.mark.parametrize(
    "form", [form for form in FORMS if form.refused == "no such host"], ids=str
)
def test_what_go_takes_for_no_host_is_refused_without_asking_a_resolver(
    form: Form,
) -> None:
    with pytest.raises(ValueError, match=r"write host:port"):
        split_address(form.form)


@pytest.mark.parametrize(
    "text", ["[::1]4321", "a[::1]:4321", "[::1]x:80", "a]:1", "[a:1"]
)
def test_brackets_that_are_out_of_place_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write host:port"):
        split_address(text)


@pytest.mark.parametrize("port", ["00000000099999", "9" * 5000, "１", "-1", "+", "--0"])
def test_only_what_is_a_port_is_one(port: str) -> None:
    with pytest.raises(ValueError, match="has no valid port"):
        split_address(f"localhost:{port}")


def test_a_client_of_this_machine_asks_where_every_address_is_served() -> None:
    hosts = ("0.0.0.0", "", "::", "::1", "10.0.0.1", "example.test")
    asked = [client_host(host) for host in hosts]

    assert asked == ["127.0.0.1", "127.0.0.1", "127.0.0.1", *hosts[3:]]
    assert client_url("::1", 80) == "http://[::1]:80"
    assert client_url("", 80) == "http://127.0.0.1:80"
