"""The agent's settings have the former names and defaults; faults are sentences."""

import re
from pathlib import Path

import pytest

from ollama_proxy.base.errors import SettingsError
from ollama_proxy.base.fields import environment_names, shown_default
from ollama_proxy.node.settings import NodeSettings, read_node_settings

PAGE = Path(__file__).parents[2] / "docs" / "nodes.md"


def test_the_defaults_are_those_of_the_former_agent() -> None:
    settings = read_node_settings({"HOME": "/home/me"})

    assert settings.model_dump() == {
        "server_url": "http://localhost:8000",
        "node_id": None,
        "node_token": None,
        "tls": True,
        "node_port": 8001,
        "tunnel": False,
        "ollama_base_url": "http://127.0.0.1:11434",
        "heartbeat_interval": 30.0,
        "node_request_timeout": 120.0,
        "slots": None,
        "labels": {"wanted": ()},
        "models_dirs": (
            Path("/home/me/.ollama/models"),
            Path("/usr/share/ollama/.ollama/models"),
        ),
        "log_level": "info",
        "state_dir": Path("/home/me/.local/state/ollama-proxy"),
    }


def test_every_fault_is_named_with_its_variable() -> None:
    with pytest.raises(SettingsError) as caught:
        read_node_settings(
            {
                "SERVER_URL": "hub:8000",
                "NODE_ID": "a\nb",
                "NODE_PORT": "eighty",
                "HEARTBEAT_INTERVAL": "0",
                "OLLAMA_BASE_URL": "http://me:word@host",
                "NODE_LABELS": "gpu",
                "LOG_LEVEL": "loud",
            }
        )

    told = "\n".join(caught.value.faults)
    assert [line.partition(":")[0] for line in caught.value.faults] == [
        *("SERVER_URL", "NODE_ID", "NODE_PORT", "OLLAMA_BASE_URL"),
        *("HEARTBEAT_INTERVAL", "NODE_LABELS", "LOG_LEVEL"),
    ]
    assert "word" not in told


@pytest.mark.parametrize(
    "url", ["http://", "http://a:99999", "http://a/?b=1", "http://a#b", "ftp://a"]
)
def test_an_address_that_nothing_can_be_sent_to_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="SERVER_URL"):
        read_node_settings({"SERVER_URL": url})


def test_a_path_before_the_hub_stays() -> None:
    settings = read_node_settings({"SERVER_URL": '"https://a.example/hub/"'})

    assert settings.beat_url == "https://a.example/hub/nodes/heartbeat"
    assert settings.hub == ("a.example", 443)


def test_labels_are_a_list_and_a_folder_may_begin_at_home() -> None:
    settings = read_node_settings(
        {
            "HOME": "/home/me",
            "NODE_LABELS": "gpu=a100, site=home",
            "OLLAMA_MODELS": "~/models",
        }
    )

    assert dict(settings.labels.wanted) == {"gpu": "a100", "site": "home"}
    assert settings.models_dirs == (Path("/home/me/models"),)


def test_the_models_of_an_ollama_elsewhere_are_not_looked_for_here() -> None:
    settings = read_node_settings({"OLLAMA_BASE_URL": "http://192.0.2.7:11434"})

    assert settings.models_dirs == ()


def test_the_page_lists_every_setting_as_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.M)

    assert [(name, default.strip("`"), meaning) for name, default, meaning in rows] == [
        (environment_names(field)[0], shown_default(field), field.description)
        for field in NodeSettings.model_fields.values()
    ]
