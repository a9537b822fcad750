"""Files that only their owner can read: whole or not at all."""

from pathlib import Path

import pytest

from ollama_proxy.base.private_file import write_private


def test_only_the_owner_can_read_it_whatever_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "secret.json"
    path.write_text("former")
    path.chmod(0o644)
    (tmp_path / "secret.new").write_text("of a process that was killed")

    write_private(path, b"text", is_lasting=True)

    assert path.read_bytes() == b"text"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cant_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.mkdir()

    with pytest.raises(OSError, match="secret"):
        write_private(path, b"text")

    assert list(tmp_path.iterdir()) == [path]
