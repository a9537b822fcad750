"""The order token: who can read it, and that it is known again."""

import stat
from pathlib import Path

import pytest

from ollama_proxy.gateway.order_token import (
    OrderToken,
    make_order_token,
    read_order_token,
)


def test_a_start_makes_a_token_that_only_its_owner_can_read(tmp_path: Path) -> None:
    token = make_order_token(tmp_path)
    text = read_order_token(tmp_path)

    assert text.startswith("opt_")
    assert len(text) == 47
    assert token.is_it(text)
    mode = (tmp_path / "order-token").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["order-token"]


def test_each_start_makes_another(tmp_path: Path) -> None:
    first = make_order_token(tmp_path)
    before = read_order_token(tmp_path)
    make_order_token(tmp_path)

    assert not first.is_it(read_order_token(tmp_path))
    assert first.is_it(before)


def test_a_link_that_somebody_put_there_is_replaced(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    state = tmp_path / "state"
    state.mkdir()
    for name in ("order-token", "order-token.new"):
        (state / name).symlink_to(other)

    make_order_token(state)

    assert other.read_text() == "theirs"
    assert read_order_token(state).startswith("opt_")


@pytest.mark.parametrize("text", ["", "opt_", "opt_x", "op_y", "\udcff"])
def test_no_other_text_is_it(text: str) -> None:
    assert not OrderToken("opt_right").is_it(text)
    assert not OrderToken("").is_it(text)


def test_it_is_not_shown() -> None:
    assert "right" not in repr(OrderToken("opt_right"))


@pytest.mark.parametrize("written", [b"", b"nonsense", b"opt_\xff", b"\n"])
def test_a_damaged_file_has_no_token(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "order-token").write_bytes(written)
    assert not read_order_token(tmp_path)
