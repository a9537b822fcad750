"""A node keeps its name."""

from pathlib import Path

from structlog.testing import LogCapture

from ollama_proxy.node.identity import keep_node_id


def test_a_node_keeps_its_name_when_its_host_is_renamed(tmp_path: Path) -> None:
    assert keep_node_id(tmp_path / "s", None, "box") == "box"
    assert keep_node_id(tmp_path / "s", None, "renamed") == "box"


def test_the_setting_wins_and_is_kept(tmp_path: Path) -> None:
    keep_node_id(tmp_path, None, "box")

    assert keep_node_id(tmp_path, "gpu-1", "box") == "gpu-1"
    assert keep_node_id(tmp_path, None, "box") == "gpu-1"


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "node-id").write_bytes(b"\xff\x00\n\n")

    assert keep_node_id(tmp_path, None, "box") == "box"
    assert (tmp_path / "node-id").read_text() == "box\n"


def test_a_folder_that_cannot_be_written_is_a_warning(
    tmp_path: Path, errors_logged: LogCapture
) -> None:
    (tmp_path / "file").touch()

    assert keep_node_id(tmp_path / "file" / "s", None, "box") == "box"
    assert errors_logged.entries[0]["event"] == "node_id.unwritten"


def test_a_host_without_a_usable_name_is_a_node(tmp_path: Path) -> None:
    assert keep_node_id(tmp_path, None, "") == "node"
