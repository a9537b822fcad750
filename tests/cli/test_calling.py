"""What a person types next: true for the way in which this proxy was started."""

from pathlib import Path

import pytest

from ollama_proxy.cli.calling import container_words, program_words

ID = "4f5e6d7c8b9a" + "0" * 52
MOUNTS = f"""\
1543 1542 0:87 / / rw,relatime - overlay overlay rw
1560 1543 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 x rw
"""
PODMAN_MOUNTS = f"""\
987 960 0:24 /run/containers/storage/overlay-containers/{ID}/userdata/hostname \
/etc/hostname rw - tmpfs tmpfs rw
"""


def script(folder: Path) -> Path:
    folder.mkdir(parents=True)
    made = folder / "ollama-proxy"
    made.write_text("#!/bin/sh\n")
    return made


def test_a_program_on_the_path_is_called_by_its_name(tmp_path: Path) -> None:
    installed = script(tmp_path / "bin")

    assert program_words(str(installed), [], str(installed)) == "ollama-proxy"


@pytest.mark.parametrize("has_another", [False, True])
def test_a_program_of_a_venv_is_called_as_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_another: bool
) -> None:
    script(tmp_path / ".venv/bin")
    found = str(script(tmp_path / "usr/bin")) if has_another else None
    monkeypatch.chdir(tmp_path)

    words = program_words(".venv/bin/ollama-proxy", [], found)
    assert words == ".venv/bin/ollama-proxy"


def test_a_folder_with_a_space_is_quoted(tmp_path: Path) -> None:
    made = str(script(tmp_path / "my folder"))

    assert program_words(made, [], None) == f"'{made}'"


@pytest.mark.parametrize(
    ("started", "words"),
    [
        (["python", "-m", "ollama_proxy", "serve"], "python -m ollama_proxy"),
        (
            [".venv/bin/python", "-X", "dev", "-m", "ollama_proxy", "serve", "-m"],
            ".venv/bin/python -X dev -m ollama_proxy",
        ),
        (["python3", "-mollama_proxy", "serve"], "python3 -m ollama_proxy"),
        (["python3", "/x/ollama_proxy/__main__.py"], "python3 -m ollama_proxy"),
        ([], "python3 -m ollama_proxy"),
    ],
)
def test_a_module_is_called_as_one(started: list[str], words: str) -> None:
    assert program_words("/x/ollama_proxy/__main__.py", started, None) == words


def marked(root: Path, mark: str, mounts: str) -> Path:
    for name, text in ((mark, ""), ("proc/self/mountinfo", mounts)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("mark", "mounts", "words"),
    [
        (".dockerenv", MOUNTS, "docker exec -it 4f5e6d7c8b9a "),
        (".dockerenv", "", "docker exec -it host-1 "),
        ("run/.containerenv", PODMAN_MOUNTS, "podman exec -it 4f5e6d7c8b9a "),
    ],
)
def test_a_container_is_entered_by_its_engine(
    tmp_path: Path, mark: str, mounts: str, words: str
) -> None:
    root = marked(tmp_path, mark, mounts)

    assert container_words(root, "host-1", is_pod=False) == words


def test_a_pod_is_entered_by_kubectl_in_its_namespace(tmp_path: Path) -> None:
    bare = container_words(tmp_path, "proxy-0", is_pod=True)
    folder = tmp_path / "run/secrets/kubernetes.io/serviceaccount"
    folder.mkdir(parents=True)
    (folder / "namespace").write_text("ai\n")

    assert bare == "kubectl exec -it proxy-0 -- "
    named = container_words(tmp_path, "proxy-0", is_pod=True)
    assert named == "kubectl exec -it -n ai proxy-0 -- "


def test_a_machine_is_no_container(tmp_path: Path) -> None:
    assert container_words(tmp_path, "host-1", is_pod=False) == ""
