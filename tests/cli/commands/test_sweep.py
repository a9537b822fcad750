"""`sweep`: options that do not go together are named, and nothing is touched."""

from pathlib import Path

import pytest

from tests.black_box import run_cli


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--owner", "a", "--dry-run"],
            "--dry-run: --all-owners lists, and deletes nothing",
        ),
        (
            ["--owner", "a", "--expired"],
            "choose one of --all-owners, --owner, --adopt-owner and --expired",
        ),
        (["--yes"], "--launch, --yes: these go with --owner or --adopt-owner"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, options: list[str], told: str
) -> None:
    done = run_cli("sweep", *options, OLLAMA_PROXY_STATE_DIR=str(tmp_path / "s"))

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ollama-proxy: {told}\n"
    assert not (tmp_path / "s").exists()
