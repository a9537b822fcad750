"""Say how a person calls the proxy's commands, where this one runs."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = "ollama-proxy"
_MODULE = ("-m", "ollama_proxy")
_CONTAINER_ID = re.compile(r"containers/([0-9a-f]{64})/")
_SHORT = 12  # engines print an id with 12 digits
_NAMESPACE = "run/secrets/kubernetes.io/serviceaccount/namespace"


def program_words(script: str, started: Sequence[str], found: str | None) -> str:
    """Return the command that calls this program again, from the same folder.

    ``script``, ``started``: ``sys.argv[0]`` and ``sys.orig_argv``. ``found``: the
    ``ollama-proxy`` on the PATH.
    """
    path = Path(script)
    if path.stem != _PROGRAM:
        return shlex.join(_python(started))
    if found is not None and _is_same(path, Path(found)):
        return _PROGRAM
    return shlex.quote(script)


def _python(started: Sequence[str]) -> list[str]:
    """Return ``python -m ollama_proxy``, with the options that it was started with."""
    for end in range(2, len(started)):
        if tuple(started[end - 1 : end + 1]) == _MODULE:
            return list(started[: end + 1])
    return [started[0] if started else "python3", *_MODULE]


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def container_words(root: Path, hostname: str, *, is_pod: bool) -> str:
    """Return the command that runs a program in this container; "" outside of one.

    ``root``: the folder ``/``, where container engines leave their marks. ``is_pod``:
    Kubernetes runs it; a pod's name is its host name.
    """
    if is_pod:
        namespace = _read(root / _NAMESPACE).strip()
        option = f"-n {shlex.quote(namespace)} " if namespace else ""
        return f"kubectl exec -it {option}{shlex.quote(hostname)} -- "
    for mark, engine in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if (root / mark).exists():
            found = _CONTAINER_ID.search(_read(root / "proc/self/mountinfo"))
            name = found[1][:_SHORT] if found else hostname
            return f"{engine} exec -it {shlex.quote(name)} "
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
