"""Kubernetes' variables for Services are told apart from settings and mistakes."""

import itertools
from pathlib import Path

import pytest

from ollama_proxy.base.errors import SettingsError
from ollama_proxy.base.fields import environment_names
from ollama_proxy.config.known_settings import every_setting
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.service_links import is_service_link, service_links
from tests.black_box import forked_proxy, run_cli
from tests.ports import address_of_nobody


def links(
    service: str, address: str = "10.96.12.7", port: int = 11434
) -> dict[str, str]:
    """Return what the kubelet sets for a Service with one named port."""
    name = service.upper().replace("-", "_")
    host = f"[{address}]" if ":" in address else address
    return {
        f"{name}_SERVICE_HOST": address,
        f"{name}_SERVICE_PORT": str(port),
        f"{name}_SERVICE_PORT_HTTP": str(port),
        f"{name}_PORT": f"tcp://{host}:{port}",
        f"{name}_PORT_{port}_TCP": f"tcp://{host}:{port}",
        f"{name}_PORT_{port}_TCP_PROTO": "tcp",
        f"{name}_PORT_{port}_TCP_PORT": str(port),
        f"{name}_PORT_{port}_TCP_ADDR": address,
    }


SERVICES = ["ollama-proxy", "ollama-proxy-metrics", "ollama", "exoscale", "fly", "gpu"]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("address", ["10.96.12.7", "fd00:10:96::7"])
def test_a_service_that_is_named_as_we_are_changes_nothing(
    service: str, address: str
) -> None:
    assert load_settings(links(service, address)) == load_settings({})


def test_every_variable_of_a_service_is_known_by_itself() -> None:
    for name, value in links("ollama-proxy").items():
        assert is_service_link(name, value), name
        assert load_settings({name: value}) == load_settings({}), name


@pytest.mark.parametrize("protocol", ["udp", "sctp"])
def test_a_service_need_not_be_tcp(protocol: str) -> None:
    name = f"OLLAMA_PROXY_PORT_53_{protocol.upper()}"

    assert is_service_link(name, f"{protocol}://10.0.0.1:53")
    assert is_service_link(f"{name}_PROTO", protocol)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OLLAMA_PROXY_PORT", "11434"),
        ("OLLAMA_PROXY_PORT", "tcp://"),
        ("OLLAMA_PROXY_PORT", "tcp://10.0.0.1"),
        ("OLLAMA_PROXY_PORT", "tcp://10.0.0.1:99999"),
        ("OLLAMA_PROXY_PORT", "tcp://ollama:11434"),
        ("OLLAMA_PROXY_PORT", "http://10.0.0.1:80"),
        ("OLLAMA_PROXY_PORTS", "tcp://10.0.0.1:80"),
        ("OLLAMA_PROXY_HOST", "10.0.0.1"),
        ("OLLAMA_PROXY_ADDR", "10.0.0.1"),
        ("OLLAMA_PROXY_SERVICE_HOST", "localhost"),
        ("OLLAMA_PROXY_SERVICE_PORT", "http"),
        ("OLLAMA_PROXY_SERVICE_PORT", "٣"),
        ("OLLAMA_PROXY_SERVICE_PORT", ""),
        ("OLLAMA_PROXY_PORT_11434_TCP_PROTO", "http"),
        ("OLLAMA_PROXY_PORT_X_TCP", "tcp://10.0.0.1:80"),
        ("OLLAMA_PROXY_IDLE_TIMOUT", "5m"),
        ("OLLAMA_PROXY_BACKEND_PORT_", "tcp://10.0.0.1:80"),
    ],
)
def test_a_mistake_is_refused_although_it_resembles_one(name: str, value: str) -> None:
    assert not is_service_link(name, value)
    with pytest.raises(SettingsError, match="unknown setting"):
        load_settings({name: value})


def test_a_mistake_beside_a_service_is_still_told() -> None:
    env = links("ollama-proxy") | {"OLLAMA_PROXY_BAKEND": "local"}

    with pytest.raises(SettingsError) as caught:
        load_settings(env)

    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        "OLLAMA_PROXY_BAKEND"
    ]


def test_no_setting_has_a_name_that_a_service_can_take() -> None:
    values = ("10.0.0.1", "80", "tcp", "tcp://10.0.0.1:80")
    names = [n for field in every_setting().values() for n in environment_names(field)]

    for name, value in itertools.product(names, values):
        assert not is_service_link(name, value), name


def test_the_names_are_those_with_the_prefix_in_order() -> None:
    env = links("ollama-proxy") | links("other") | {"OLLAMA_PROXY_HOLD": "1"}

    assert service_links(env, "OLLAMA_") == sorted(links("ollama-proxy"))


@pytest.mark.parametrize("level", ["debug", "info"])
def test_the_log_names_them_to_who_looks_closely(tmp_path: Path, level: str) -> None:
    env = links("ollama-proxy") | {"LOG_LEVEL": level}
    with forked_proxy(tmp_path / "s", **env) as it:
        told = it.log.read_text()

    assert ("settings.service_links_ignored" in told) == (level == "debug")
    assert ("OLLAMA_PROXY_PORT_11434_TCP_ADDR" in told) == (level == "debug")


def test_the_commands_work_beside_such_a_service(tmp_path: Path) -> None:
    env = links("ollama-proxy") | {"OLLAMA_PROXY_STATE_DIR": str(tmp_path)}
    done = run_cli("check", OLLAMA_HOST=address_of_nobody(), **env)

    assert done.returncode == 0, done.stderr
