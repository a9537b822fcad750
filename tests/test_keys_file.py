"""A file of keys, as the whole product takes it: start, change, check."""

from pathlib import Path

import pytest

from ollama_proxy.base.errors import StartupError
from tests.black_box import forked_proxy, run_cli
from tests.proxy import running_proxy

ONE, TWO = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"


def write(path: Path, text: str, mode: int = 0o600) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(mode)
    fresh.replace(path)


def table(name: str, text: str) -> str:
    return f'[keys.{name}]\nkey = "{text}"\n'


async def test_a_running_proxy_takes_the_file_again_and_says_so_in_status(
    tmp_path: Path,
) -> None:
    path = tmp_path / "keys.toml"
    write(path, table("laptop", ONE))
    async with running_proxy(
        tmp_path / "s", OLLAMA_PROXY_KEYS_FILE=str(path), OLLAMA_PROXY_AUTH="off"
    ) as proxy:
        ring, file = proxy.parts.gateway.keyring, proxy.parts.gateway.file
        assert file is not None
        assert ring.find(ONE) is not None
        write(path, table("laptop", TWO))
        await proxy.until(lambda: ring.find(TWO) is not None)
        assert ring.find(ONE) is None
        assert (await proxy.status())["keys_file"]["problem"] is None
        write(path, "[keys.a")
        await proxy.until(lambda: file.problem is not None)
        told = (await proxy.status())["keys_file"]

        assert (told["path"], told["keys"]) == (str(path), 1)
        assert "it is not TOML" in told["problem"]
        assert ring.find(TWO) is not None


async def test_keys_stay_needed_when_the_file_is_no_longer_set(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    write(path, table("laptop", ONE))
    async with running_proxy(tmp_path / "s", OLLAMA_PROXY_KEYS_FILE=str(path)):
        pass
    async with running_proxy(tmp_path / "s") as proxy:
        assert proxy.parts.gateway.keyring.are_keys_needed
        assert list(proxy.parts.gateway.keyring) == []
        assert proxy.parts.gateway.file is None


async def test_a_file_that_cannot_be_used_refuses_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    with pytest.raises(StartupError, match="can't be read"):
        async with running_proxy(tmp_path / "s", OLLAMA_PROXY_KEYS_FILE=str(path)):
            pass


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("", 0o600, "it is empty"),
        (table("a", ONE), 0o666, "others may write it (mode 0666)"),
        (table("a", "short"), 0o600, "[keys.a] key: it can be guessed"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_command_refuses_a_bad_file_in_one_sentence(
    tmp_path: Path, command: str, text: str, mode: int, told: str
) -> None:
    path = tmp_path / "keys.toml"
    write(path, text, mode)
    done = run_cli(
        command,
        OLLAMA_HOST="127.0.0.1:0",
        OLLAMA_PROXY_STATE_DIR=str(tmp_path / "s"),
        OLLAMA_PROXY_KEYS_FILE=str(path),
        OLLAMA_PROXY_SIMULATOR="always",
    )

    assert done.returncode == (2 if command == "serve" else 1)
    assert told in done.stderr + done.stdout
    assert "short" not in done.stderr + done.stdout
    if command == "serve":
        assert done.stderr.count("\n") == 1


def test_plain_keys_that_everybody_reads_are_warned_of(tmp_path: Path) -> None:
    path, env = tmp_path / "keys.toml", {"OLLAMA_PROXY_SIMULATOR": "always"}
    write(path, table("a", ONE), 0o644)
    env["OLLAMA_PROXY_KEYS_FILE"] = str(path)
    checked = run_cli(
        "check",
        OLLAMA_HOST="127.0.0.1:0",
        OLLAMA_PROXY_STATE_DIR=str(tmp_path / "c"),
        **env,
    )
    with forked_proxy(tmp_path / "s", **env) as proxy:
        proxy.until(lambda: "keys_file.unusable" in proxy.log.read_text())
        logged = proxy.log.read_text()

    told = "every user of this machine can read (mode 0644); `chmod 600` it"
    assert told in checked.stdout
    assert told in logged
    assert ONE not in logged + checked.stdout
