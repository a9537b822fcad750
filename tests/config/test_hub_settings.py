"""The settings of the hub."""

from pathlib import Path

import pytest

from ollama_proxy.base.errors import SettingsError
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.settings import Settings
from tests.config.rig import faults, toml


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        (":8000", "", 8000),
        ("0.0.0.0", "0.0.0.0", 8000),
        ("127.0.0.1:8123", "127.0.0.1", 8123),
        ("[::1]", "::1", 8000),
    ],
)
def test_the_port_of_the_former_hub_is_the_default(
    value: str, host: str, port: int
) -> None:
    listen = load_settings({"OLLAMA_PROXY_HUB_LISTEN": value}).hub_listen

    assert listen is not None
    assert (listen.host, listen.port) == (host, port)


@pytest.mark.parametrize("value", ["off", "OFF", " off "])
def test_the_second_address_may_be_turned_off(value: str) -> None:
    assert load_settings({"OLLAMA_PROXY_HUB_LISTEN": value}).hub_listen is None


def test_by_default_there_is_no_hub() -> None:
    settings = load_settings({})

    assert not settings.hub
    assert settings.hub_listen is not None
    assert (settings.hub_listen.host, settings.hub_listen.port) == ("", 8000)


def test_what_is_no_address_is_refused_with_the_name_of_the_setting() -> None:
    with pytest.raises(SettingsError, match="OLLAMA_PROXY_HUB_LISTEN"):
        load_settings({"OLLAMA_PROXY_HUB_LISTEN": "a b:8000"})


HUB = {"OLLAMA_PROXY_HUB": "true"}
EXO = {"EXOSCALE_API_KEY": "EXOabc", "EXOSCALE_API_SECRET": "s"}


def offers(settings: Settings) -> list[tuple[str, str]]:
    return [(offer.name, offer.backend) for offer in settings.pools[0].offers]


def test_the_hub_without_a_file_is_a_house_for_all_models() -> None:
    settings = load_settings(HUB)

    assert offers(settings) == [("house", "hub")]
    assert [glob.text for glob in settings.pools[0].models] == ["*"]
    assert settings.sentences == (
        "backend 'hub', because the hub is on and no other backend is named",
    )
    assert settings.notices == ()


@pytest.mark.parametrize("backend", ["exoscale", "local"])
def test_a_backend_that_is_named_is_the_overflow(backend: str) -> None:
    settings = load_settings(HUB | EXO | {"OLLAMA_PROXY_BACKEND": backend})

    assert offers(settings) == [("house", "hub"), (backend, backend)]
    assert settings.sentences == (
        "offer 'house': backend 'hub', because OLLAMA_PROXY_HUB names it",
        f"offer '{backend}': backend '{backend}', because OLLAMA_PROXY_BACKEND names"
        " it",
    )


def test_a_server_of_others_can_be_the_overflow_too() -> None:
    url = {"OLLAMA_PROXY_UPSTREAM_URL": "http://box.lan:11434"}
    settings = load_settings(HUB | url | {"OLLAMA_PROXY_BACKEND": "static"})

    assert offers(settings) == [("house", "hub"), ("static", "static")]


def test_credentials_alone_are_no_overflow_and_one_line_says_how() -> None:
    settings = load_settings(HUB | EXO)

    assert offers(settings) == [("house", "hub")]
    (notice,) = settings.notices
    assert "EXOSCALE_API_KEY" in notice
    assert "OLLAMA_PROXY_BACKEND=exoscale" in notice
    assert "when its nodes are full" in notice


def test_a_url_alone_is_no_overflow_and_one_line_says_how() -> None:
    settings = load_settings(
        HUB | {"OLLAMA_PROXY_UPSTREAM_URL": "http://box.lan:11434"}
    )

    assert offers(settings) == [("house", "hub")]
    (notice,) = settings.notices
    assert notice.startswith("OLLAMA_PROXY_UPSTREAM_URL: the hub is on")
    assert "OLLAMA_PROXY_BACKEND=static" in notice


def test_a_default_backend_is_no_overflow() -> None:
    settings = load_settings(HUB | {"OLLAMA_PROXY_DEFAULT_BACKEND": "local"})

    assert offers(settings) == [("house", "hub")]


def test_the_hub_may_be_named_as_the_backend() -> None:
    settings = load_settings(HUB | {"OLLAMA_PROXY_BACKEND": "hub"})

    assert offers(settings) == [("house", "hub")]


def test_labels_choose_the_nodes_of_the_house() -> None:
    settings = load_settings(HUB | {"OLLAMA_PROXY_HUB_LABELS": "gpu=a100, site=home*"})

    (offer,) = settings.offers
    assert str(offer.settings.labels) == "gpu=a100, site=home*"  # type: ignore[attr-defined]  # hub's


def test_labels_without_the_hub_are_told_to_be_of_no_use() -> None:
    (notice,) = load_settings({"OLLAMA_PROXY_HUB_LABELS": "gpu=a100"}).notices

    assert notice.startswith("OLLAMA_PROXY_HUB_LABELS: the hub is off")


def test_two_offers_of_nodes_have_labels_of_their_own(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        """
        hub = true
        [offers.fast]
        backend = "hub"
        labels = { gpu = "a100" }
        [offers.slow]
        backend = "hub"
        labels = "gpu=none"
        [pools.large]
        models = ["*:70b"]
        offers = ["fast"]
        [pools.rest]
        offers = ["slow", "fast"]
        """,
    )
    settings = load_settings({}, file)

    found = [str(one.settings.labels) for one in settings.offers]  # type: ignore[attr-defined]  # hub's
    assert found == ["gpu=a100", "gpu=none"]
    assert settings.notices == ()


def test_pools_alone_have_the_house_and_the_named_backend(tmp_path: Path) -> None:
    file = toml(tmp_path, "hub = true\nbackend = 'local'\n[pools.a]\nmax_instances = 2")
    settings = load_settings({}, file)

    assert offers(settings) == [("house", "hub"), ("local", "local")]


def test_offers_without_nodes_are_told_while_the_hub_is_on(tmp_path: Path) -> None:
    file = toml(tmp_path, "hub = true\n[offers.mine]\nbackend = 'local'")

    assert any(
        "no request goes to a node" in one for one in load_settings({}, file).notices
    )


@pytest.mark.parametrize(
    ("env", "text", "place"),
    [
        ({"OLLAMA_PROXY_BACKEND": "hub"}, "", "OLLAMA_PROXY_BACKEND"),
        ({}, "[offers.house]\nbackend = 'hub'", "p.toml:1: offers.house"),
    ],
)
def test_nodes_without_the_hub_are_a_mistake(
    tmp_path: Path, env: dict[str, str], text: str, place: str
) -> None:
    (fault,) = faults(env, toml(tmp_path, text))

    assert place in fault.partition(": the backend")[0]
    assert "set OLLAMA_PROXY_HUB=true" in fault


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OLLAMA_PROXY_HUB_LEGACY", "maybe", "'auto', 'on' or 'off'"),
        ("HEARTBEAT_TTL_SECONDS", "0", "greater than or equal to 1"),
        ("HEARTBEAT_OFFLINE_SECONDS", "90", "are not more than HEARTBEAT_TTL_SECONDS"),
        ("NODE_MAX_FAILURES", "0", "greater than or equal to 1"),
        ("NODE_REQUEST_TIMEOUT", "-1", ""),
        ("OLLAMA_PROXY_HUB", "perhaps", ""),
        ("OLLAMA_PROXY_HUB_LABELS", "gpu", "'gpu' has no value"),
        ("OLLAMA_PROXY_HUB_WANTED_MODELS", "a b", "'a b' is no name of a model"),
    ],
)
def test_a_wrong_value_is_told_by_its_variable(
    variable: str, value: str, words: str
) -> None:
    told = faults(HUB | {variable: value})

    assert any(one.startswith(variable) and words in one for one in told), told


def test_the_names_of_the_former_hub_are_read() -> None:
    settings = load_settings(
        {
            "HEARTBEAT_INTERVAL": "10",
            "HEARTBEAT_TTL_SECONDS": "30",
            "HEARTBEAT_OFFLINE_SECONDS": "60",
            "NODE_MAX_FAILURES": "5",
            "NODE_REQUEST_TIMEOUT": "300",
        }
    )

    assert (settings.heartbeat_interval, settings.heartbeat_ttl) == (10, 30)
    assert (settings.heartbeat_offline, settings.node_max_failures) == (60, 5)
    assert settings.node_request_timeout == 300


def test_wanted_models_are_words_or_a_list(tmp_path: Path) -> None:
    file = toml(tmp_path, 'hub = true\nhub_wanted_models = ["llama3", "qwen2.5:7b"]')

    assert load_settings({}).hub_wanted_models.is_none
    assert str(load_settings({}, file).hub_wanted_models) == "llama3:latest,qwen2.5:7b"
