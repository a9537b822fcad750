"""`deploy` and `delete`: their questions, and their end without a terminal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ollama_proxy.cli import control_client
from ollama_proxy.cli.commands import deployment
from ollama_proxy.server.control_socket import ControlOrder
from tests.black_box import run_cli

SENTENCE = " There is no terminal to answer at, so nothing was touched; --yes answers\n"


@pytest.mark.parametrize(
    ("words", "question"),
    [
        (["delete"], "Delete everything of this deployment in its cloud, 'local'?"),
        (["delete", "--config", "c.toml"], "Delete everything of this deployment in "),
    ],
)
def test_a_deletion_that_nobody_can_answer_for_is_refused(
    tmp_path: Path, words: list[str], question: str
) -> None:
    (tmp_path / "c.toml").write_text("backend = 'local'")
    words = [str(tmp_path / word) if word == "c.toml" else word for word in words]
    done = run_cli(*words, OLLAMA_PROXY_STATE_DIR=str(tmp_path / "s"))

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ollama-proxy: {question}")
    assert done.stderr.endswith(SENTENCE)
    assert not (tmp_path / "s").exists()


def test_a_deletion_with_its_answer_asks_nobody(tmp_path: Path) -> None:
    done = run_cli("delete", "--yes", OLLAMA_PROXY_STATE_DIR=str(tmp_path))

    assert done.returncode == 2
    assert "the backend 'local' has nothing to be deployed" in done.stderr


def test_a_deletion_by_a_running_proxy_says_which_offers_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    orders: list[ControlOrder] = []

    def ask(_folder: Path, order: ControlOrder) -> Iterator[str]:
        orders.append(order)
        return iter(["deleted"])

    monkeypatch.setattr(control_client, "ask_running", ask)
    path = tmp_path / "c.toml"
    path.write_text('[offers.a]\nbackend = "local"\n[offers.b]\nbackend = "local"\n')
    deployment.delete(path, yes=True)
    told = capsys.readouterr().out

    assert [order.backend for order in orders] == ["a"]
    assert "deleted what 'a' has; stop it to delete what others have: b" in told
