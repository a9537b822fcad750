"""``ollama-proxy node`` as a process."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.black_box import clean_environment, run_cli


def test_a_signal_ends_it_with_success_and_it_says_first_what_it_does(
    tmp_path: Path,
) -> None:
    env = clean_environment(
        NODE_PORT="0", NODE_ID="gpu-1", OLLAMA_PROXY_STATE_DIR=str(tmp_path)
    )
    with subprocess.Popen(
        [sys.executable, "-m", "ollama_proxy", "node"],
        env=env | {"SERVER_URL": "http://127.0.0.1:9"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)

    assert line.startswith("ollama-proxy node: 'gpu-1' reports http://127.0.0.1:11434")
    assert code == 0
    assert (tmp_path / "node-id").read_text() == "gpu-1\n"


def test_wrong_settings_are_named_and_end_it_with_2(tmp_path: Path) -> None:
    done = run_cli(
        "node", OLLAMA_NUM_PARALLEL="many", OLLAMA_PROXY_STATE_DIR=str(tmp_path)
    )

    assert done.returncode == 2
    assert done.stderr.startswith("ollama-proxy: OLLAMA_NUM_PARALLEL: ")


def test_help_names_the_settings() -> None:
    assert "SERVER_URL" in run_cli("node", "--help").stdout
