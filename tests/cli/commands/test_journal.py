"""`journal`: what happened, and who ordered what."""

import json
from pathlib import Path

from ollama_proxy.cli.commands.journal import audit_words, transition_words
from tests.black_box import forked_proxy, run_cli

TRANSITION = {
    "at": 1.0,
    "slot": "default/0/fly",
    "launch_id": "l0000000000000001",
    "before": "cold",
    "after": "starting",
    "event": "Wake",
    "fault": None,
    "report": None,
}
ORDER = {
    "at": 2.0,
    "caller": "root",
    "address": "10.0.0.7",
    "action": "key add",
    "target": "laptop (0123abcd)",
    "detail": "rpm 60",
}


def test_a_change_of_state_is_one_line_with_its_fault() -> None:
    words = "default/0/fly cold -> starting: Wake of l0000000000000001"

    assert transition_words(TRANSITION) == words
    assert transition_words(TRANSITION | {"fault": "no room"}) == f"{words}; no room"


def test_an_order_is_one_line_with_who_gave_it() -> None:
    given = "by root from 10.0.0.7"

    assert audit_words(ORDER) == f"key add laptop (0123abcd), {given}: rpm 60"
    bare = {"action": "sweep", "target": "", "detail": "", "caller": ""}
    assert audit_words(ORDER | bare) == "sweep, by anybody from 10.0.0.7"


def test_a_changed_file_of_keys_is_one_line_without_anybody() -> None:
    file = {"action": "keys file", "target": "/keys.toml", "caller": "", "address": ""}

    assert audit_words(ORDER | file) == "keys file /keys.toml: rpm 60"


def test_it_lists_changes_and_orders_the_newest_first(tmp_path: Path) -> None:
    env = {"OLLAMA_PROXY_STATE_DIR": str(tmp_path / "s")}
    with forked_proxy(tmp_path / "s"):
        assert run_cli("journal", **env).stdout == "nothing has happened so far\n"
        run_cli("key", "add", "laptop", "--yes", **env)
        run_cli("stop", **env)
        told = run_cli("journal", **env).stdout.splitlines()
        as_json = json.loads(run_cli("journal", "--json", **env).stdout)

    assert len(told) == 2
    assert told[0].endswith("Z  stop default, by the order token from 127.0.0.1")
    assert "Z  key add laptop (" in told[1]
    assert [line["action"] for line in as_json["audit"]] == ["stop", "key add"]
