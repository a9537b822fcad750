"""Files that people name: nothing else is waited for, and no more is read."""

import os
from pathlib import Path

import pytest

from ollama_proxy.base.regular_file import read_regular


def test_one_byte_more_than_is_wanted_is_read_and_the_mode_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    path.chmod(0o640)

    data, mode = read_regular(path, 4)

    assert data == b"01234"
    assert mode & 0o777 == 0o640


def test_a_folder_and_a_pipe_without_a_writer_are_no_regular_files(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert read_regular(tmp_path, 4)[0] is None
    assert read_regular(tmp_path / "pipe", 4)[0] is None


def test_what_is_not_there_or_no_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", 4)
    with pytest.raises(ValueError, match="null"):
        read_regular(tmp_path / "a\0b", 4)
