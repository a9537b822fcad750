"""Settings from environment and file, and every fault at once."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_proxy.backends.static_settings import StaticSettings
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.base.parsers import (
    Listen,
    parse_duration,
    parse_listen,
    parse_names,
    parse_size,
    replace_listen,
)
from ollama_proxy.base.upstream_url import UpstreamUrl
from ollama_proxy.config.loader import load_settings
from ollama_proxy.config.settings import Settings
from tests.black_box import clean_environment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        (90, 90),
        ("90s", 90),
        ("30m", 1800),
        (" 2 H ", 7200),
        ("1h30m", 5400),
        ("0", 0),
        ("0.5s", 0.5),
        ("250ms", 0.25),
        ("1d", 86400),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "5x", "m", "1h x", True, None])
def test_what_is_no_duration_is_refused_with_what_would_be(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration; write 90s, 30m or 2h"):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_whole_seconds_are_themselves(seconds: int) -> None:
    assert parse_duration(f"{seconds}s") == parse_duration(str(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("64k", 65536), ("2g", 2 << 30), ("1MiB", 1 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:11434", "127.0.0.1", 11434),
        ("0.0.0.0", "0.0.0.0", 11434),
        (":8080", "", 8080),
        ("http://example.test", "example.test", 80),
        ("https://example.test/prefix", "example.test", 443),
        ("http://example.test:99/prefix", "example.test", 99),
        ("[::1]:5000", "::1", 5000),
        ("::1", "::1", 11434),
        ('"0.0.0.0:1"', "0.0.0.0", 1),
    ],
)
def test_the_listen_address_is_read_as_ollama_reads_it(
    text: str, host: str, port: int
) -> None:
    listen = parse_listen(text)

    assert (listen.host, listen.port) == (host, port)


def test_a_port_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="has no valid port"):
        parse_listen("localhost:70000")


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        (None, None, ("10.0.0.1", 9000)),
        ("0.0.0.0", None, ("0.0.0.0", 9000)),
        (None, "80", ("10.0.0.1", 80)),
        ("::1", "0", ("::1", 0)),
        ("localhost:8080", None, ("localhost", 8080)),
        ("localhost:8080", "8081", ("localhost", 8081)),
    ],
)
def test_an_option_replaces_its_part_of_the_address(
    host: str | None, port: str | None, expected: tuple[str, int]
) -> None:
    replaced = replace_listen(Listen(host="10.0.0.1", port=9000), host, port)

    assert (replaced.host, replaced.port) == expected


@pytest.mark.parametrize(
    "port", ["", "65536", "-1", "http", "1:2", "１", "0" * 9 + "x"]
)
def test_an_option_that_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(ValueError, match="is not a port; write one from 0 to 65535"):
        replace_listen(Listen(host="10.0.0.1", port=9000), None, port)


def test_names_are_trimmed_and_each_is_kept_once() -> None:
    assert parse_names(" a, b:7b ,,a") == ("a", "b:7b")


def test_the_three_names_for_models_are_added_up() -> None:
    settings = load_settings(
        {"OLLAMA_MODEL": "a", "OLLAMA_PRELOAD_MODELS": "b,c", "PRELOAD_MODELS": "a,d"}
    )

    assert settings.models == ("a", "b", "c", "d")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('idle_timeout = "5m"\nhold = 7\n')
    settings = load_settings({"OLLAMA_PROXY_IDLE_TIMEOUT": "9m"}, path)

    assert (settings.idle_timeout, settings.hold) == (540, 7)


def test_a_file_in_the_working_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ollama-proxy.toml").write_text('models = ["a"]\n')
    monkeypatch.chdir(tmp_path)

    assert load_settings({}).models == ("a",)


def as_somebody(folder: Path) -> subprocess.CompletedProcess[str]:
    """Load the settings in a folder as a user without files."""
    code = (
        "from ollama_proxy.config.loader import load_settings as load\n"
        "from ollama_proxy.base.errors import SettingsError\n"
        "from ollama_proxy.fleet.backend_loader import find_backends\n"
        "find_backends()\n"  # this user may be unable to read Python's own files
        f"import os; os.chdir({str(folder)!r}); os.getuid() or os.setuid(1000670000)\n"
        "try: print(load({}).models)\n"
        "except SettingsError as error: print(*error.faults)"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_working_folder_that_may_not_be_searched_has_no_file(tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root can enter a folder that nobody may search")
    (tmp_path / "ollama-proxy.toml").write_text('models = ["a"]\n')
    tmp_path.chmod(0)
    done = as_somebody(tmp_path)

    assert (done.stdout.strip(), done.stderr) == ("()", "")


def test_a_working_folder_that_is_gone_has_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()

    assert load_settings({}).models == ()


def test_a_file_that_is_there_and_may_not_be_read_is_a_fault() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed
        Path(folder).chmod(0o755)
        file = Path(folder, "ollama-proxy.toml")
        file.write_text('models = ["a"]\n')
        file.chmod(0)
        done = as_somebody(Path(folder))

    assert "ollama-proxy.toml: the settings file can't be read" in done.stdout
    assert "Permission denied" in done.stdout


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('idle_timout = "5m"\nmax_waiting = 0\n')
    env = {"OLLAMA_PROXY_HOLD": "soon", "OLLAMA_PROXY_BAKEND": "local"}
    with pytest.raises(SettingsError) as caught:
        load_settings(env, path)

    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 4
    assert "unknown setting 'idle_timout'; did you mean idle_timeout?" in faults
    assert "OLLAMA_PROXY_BAKEND: unknown setting" in faults
    assert "OLLAMA_PROXY_HOLD: 'soon' is not a duration" in faults
    assert f"{path}: max_waiting: Input should be greater than or equal to 1" in faults


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("= nothing")
    with pytest.raises(SettingsError, match="can't be read"):
        load_settings({}, path)


def test_static_needs_a_url_and_the_others_take_none() -> None:
    with pytest.raises(SettingsError, match="'static' needs the URL"):
        load_settings({"OLLAMA_PROXY_BACKEND": "static"})
    with pytest.raises(SettingsError, match="'local' takes no URL"):
        load_settings(
            {"OLLAMA_PROXY_BACKEND": "local", "OLLAMA_PROXY_UPSTREAM_URL": "http://h:1"}
        )


@pytest.mark.parametrize("url", ["host:11434", "ftp://host", "http://user:pw@"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="is not a URL"):
        load_settings({"OLLAMA_PROXY_UPSTREAM_URL": url})


def test_the_backend_is_found_from_what_is_set() -> None:
    assert load_settings({}).selection.backend == "local"
    url = {"OLLAMA_PROXY_UPSTREAM_URL": "http://h:1/"}
    assert load_settings(url).selection.backend == "static"
    assert load_settings(url).of(StaticSettings).upstream_url == UpstreamUrl(
        url="http://h:1"
    )


def test_empty_variables_are_not_set() -> None:
    assert load_settings({"OLLAMA_PROXY_HOLD": " "}).hold == 0


def test_defaults_are_valid() -> None:
    assert Settings().idle_timeout == 1800


def test_a_list_that_is_a_number_is_a_fault_that_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ollama-proxy.toml"
    file.write_text("origins = 7\nidle_ignores = 5\n")
    with pytest.raises(SettingsError) as caught:
        load_settings({}, file)

    assert "origins: 7 is not a list of names" in str(caught.value)
    assert "idle_ignores: 5 is not a list of names" in str(caught.value)


def test_the_mode_of_access_and_its_hosts_are_read_and_checked() -> None:
    read = load_settings(
        {
            "OLLAMA_PROXY_AUTH": "Keys",
            "OLLAMA_PROXY_ALLOWED_HOSTS": "Ollama.Example.com, *.b.example",
        }
    )
    assert read.auth == "keys"
    assert read.allowed_hosts == ("ollama.example.com", "*.b.example")
    with pytest.raises(SettingsError) as caught:
        load_settings(
            {
                "OLLAMA_PROXY_AUTH": "yes",
                "OLLAMA_PROXY_ALLOWED_HOSTS": "https://a.example",
            }
        )
    told = " ".join(caught.value.faults)
    assert "OLLAMA_PROXY_AUTH" in told
    assert "'https://a.example' is no name of a host; write ollama.example.com" in told


@pytest.mark.parametrize("text", ["op_a b", "op_a\r\nX: y", "op_ä", "Bearer op_a"])
def test_a_key_of_the_commands_that_is_none_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"OLLAMA_PROXY_KEY": text})
    (told,) = caught.value.faults
    assert told.startswith("OLLAMA_PROXY_KEY")
    assert "op_" not in told


def test_the_key_of_the_commands_is_trimmed() -> None:
    key = load_settings({"OLLAMA_PROXY_KEY": " op_a\n"}).key
    assert key is not None
    assert key.get_secret_value() == "op_a"


def test_the_key_of_the_commands_is_never_shown() -> None:
    assert "secret" not in repr(load_settings({"OLLAMA_PROXY_KEY": "op_secret"}))


def test_the_files_of_a_certificate_may_begin_with_the_home_folder() -> None:
    names = ("OLLAMA_PROXY_TLS_CERT", "OLLAMA_PROXY_TLS_KEY")
    settings = load_settings(dict(zip(names, ("~/a.crt", "~/a.key"), strict=True)))

    assert settings.tls_cert == Path.home() / "a.crt"
    assert settings.tls_key == Path.home() / "a.key"


def test_so_may_the_file_of_keys() -> None:
    settings = load_settings({"OLLAMA_PROXY_KEYS_FILE": "~/keys.toml"})

    assert settings.keys_file == Path.home() / "keys.toml"
