"""Environments as they are: quotes kept, no home, no room, libraries that lack."""

import os
import pwd
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.base.environment import expanded, home_folder, state_folder, unquoted
from ollama_proxy.base.errors import StartupError
from ollama_proxy.config.loader import load_settings
from ollama_proxy.store.sqlite.store import SqliteStore
from tests.black_box import PROGRAM, ROOT, clean_environment, run_cli
from tests.ports import address_of_nobody


@pytest.fixture
def nobody_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the user be one of whom the machine knows nothing, as in a cluster."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USERPROFILE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"30m"', "30m"),
        ("'30m'", "30m"),
        ("  30m\r", "30m"),
        ('" 30m "', "30m"),
        ("\"'30m'\"", "30m"),
        ('""', ""),
        ('"', '"'),
        ("\"it's", "\"it's"),
        ('s3cr"t"', 's3cr"t"'),
        ("\"30m'", "\"30m'"),
    ],
)
def test_pairs_of_quotes_around_a_value_are_not_part_of_it(
    written: str, meant: str
) -> None:
    assert unquoted(written) == meant


@given(st.text())
def test_what_was_unquoted_stays_as_it_is(text: str) -> None:
    assert unquoted(unquoted(text)) == unquoted(text)


def test_every_setting_is_read_without_its_quotes() -> None:
    settings = load_settings(
        {
            "OLLAMA_PROXY_IDLE_TIMEOUT": '"30m"',
            "OLLAMA_HOST": '"0.0.0.0:11434"',
            "OLLAMA_PROXY_BACKEND": "'exoscale'",
            "EXOSCALE_API_KEY": '"EXOkey"',
            "EXOSCALE_API_SECRET": "'it\"s'",
            "OLLAMA_MODEL": '"a, b"',
            "OLLAMA_PROXY_STICKY_MODELS": '"false"',
            "OLLAMA_PROXY_MAX_HOLD": '""',
            "LOG_LEVEL": '"WARN"',
        }
    )

    assert settings.idle_timeout == 1800.0
    assert (settings.listen.host, settings.listen.port) == ("0.0.0.0", 11434)
    assert settings.selection.backend == "exoscale"
    assert settings.of(ExoscaleSettings).api_key == "EXOkey"
    secret = settings.of(ExoscaleSettings).api_secret
    assert secret is not None
    assert secret.get_secret_value() == 'it"s'
    assert settings.models == ("a", "b")
    assert not settings.restore_models
    assert settings.max_hold == 600.0
    assert settings.log_level == "warning"


@pytest.mark.parametrize(
    ("written", "level"),
    [
        ("warn", "warning"),
        ("WARNING", "warning"),
        ("Fatal", "error"),
        ("critical", "error"),
        ("err", "error"),
        ("trace", "debug"),
        ("notice", "info"),
        (" Info ", "info"),
    ],
)
def test_a_level_may_have_the_name_that_others_give_it(
    written: str, level: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'log_level = "{written}"')

    assert load_settings({"LOG_LEVEL": written}).log_level == level
    assert load_settings({}, file).log_level == level


def test_the_home_is_that_of_the_environment_or_else_of_the_user() -> None:
    of_user = Path(pwd.getpwuid(os.getuid()).pw_dir)

    assert home_folder({"HOME": "/a"}) == Path("/a")
    assert home_folder({"HOME": '"/a"'}) == Path("/a")
    assert home_folder({"HOME": "", "USERPROFILE": "/b"}) == Path("/b")
    assert home_folder({"HOME": "relative"}) == of_user
    assert home_folder({}) == of_user


def test_the_state_folder_follows_the_base_directories() -> None:
    home = {"HOME": "/h"}

    assert state_folder(home) == Path("/h/.local/state/ollama-proxy")
    for odd in ("relative", '""', " "):
        odd_base = home | {"XDG_STATE_HOME": odd}
        assert state_folder(odd_base) == Path("/h/.local/state/ollama-proxy")
    assert state_folder(home | {"XDG_STATE_HOME": "/x"}) == Path("/x/ollama-proxy")
    in_home = home | {"XDG_STATE_HOME": '"~/x"'}
    assert state_folder(in_home) == Path("/h/x/ollama-proxy")
    assert expanded(Path("~other/x"), home) == Path("~other/x")


def test_a_tilde_that_no_shell_saw_is_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    settings = load_settings({"OLLAMA_PROXY_STATE_DIR": "~/state"})

    assert settings.state_dir == Path("/h/state")


@pytest.mark.usefixtures("nobody_known")
def test_who_has_no_home_is_told_which_setting_names_a_folder() -> None:
    settings = load_settings({})
    with pytest.raises(StartupError, match="OLLAMA_PROXY_STATE_DIR: this user has no"):
        SqliteStore(settings.state_dir)


@pytest.mark.usefixtures("nobody_known")
def test_who_has_no_home_may_name_a_folder(tmp_path: Path) -> None:
    settings = load_settings({"OLLAMA_PROXY_STATE_DIR": str(tmp_path)})

    SqliteStore(settings.state_dir).close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("command", ["--version", "--help", "status", "check"])
def test_output_on_a_full_disk_is_told_in_a_sentence(
    command: str, tmp_path: Path
) -> None:
    env = clean_environment(
        OLLAMA_PROXY_STATE_DIR=str(tmp_path), OLLAMA_HOST=address_of_nobody()
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, command],
            env=env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (
        done.stderr.splitlines()[-1] == "ollama-proxy: standard output can't be"
        " written (No space left on device); send it elsewhere"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_health_check_needs_nobody_to_hear_it(stream: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "healthcheck"],
            env=clean_environment(OLLAMA_HOST=address_of_nobody()),
            timeout=60,
            check=False,
            stdout=full if stream == "stdout" else subprocess.PIPE,
            stderr=full if stream == "stderr" else subprocess.PIPE,
        )

    assert done.returncode == 1
    assert b"Traceback" not in (done.stderr or b"")


def test_words_that_an_encoding_lacks_are_escaped(tmp_path: Path) -> None:
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    folder = tmp_path / "état"
    done = run_cli(
        "check",
        OLLAMA_PROXY_STATE_DIR=str(folder),
        OLLAMA_HOST=address_of_nobody(),
        **env,
    )

    assert done.returncode == 0
    assert r"\xe9tat" in done.stdout


_WITHOUT = """\
import sys
from tests.ports import address_of_nobody


class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"requests", "exoscale", "aiolimiter", "dxf"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Lacking())
"""
_CREDENTIALS = {
    "exoscale": {"EXOSCALE_API_KEY": "EXOk", "EXOSCALE_API_SECRET": "s"},
    "fly": {"FLY_API_TOKEN": "t", "FLY_IMAGE": "x:1", "FLY_APP": "app-1"},
    "ovh": {"OVH_AI_TOKEN": "t", "OVH_AI_IMAGE": "x:1"},
}


@pytest.mark.parametrize(
    ("backend", "command"),
    [
        ("exoscale", "serve"),
        ("exoscale", "sweep --expired"),
        ("fly", "check"),
        ("fly", "sweep --dry-run"),
        ("ovh", "deploy x:1"),
        ("ovh", "status"),
    ],
)
def test_a_cloud_without_its_libraries_names_the_extra(
    backend: str, command: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_WITHOUT)
    done = run_cli(
        *command.split(),
        PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT))),
        OLLAMA_PROXY_STATE_DIR=str(tmp_path / "state"),
        OLLAMA_PROXY_BACKEND=backend,
        OLLAMA_HOST=address_of_nobody(),
        **_CREDENTIALS[backend],
    )
    told = " ".join((done.stdout + done.stderr).split())

    assert done.returncode == 2, told
    assert "Traceback" not in told
    assert f"pip install 'ollama-proxy[{backend}]'" in told


def test_the_stand_in_needs_no_extra(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_WITHOUT)
    done = run_cli(
        "check",
        PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT))),
        OLLAMA_PROXY_STATE_DIR=str(tmp_path / "state"),
        OLLAMA_HOST=address_of_nobody(),
    )

    assert done.returncode == 0, done.stderr
