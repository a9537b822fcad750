"""Read the environment as people and container tools write it."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

if sys.platform != "win32":
    import pwd

_QUOTES = "\"'"


def unquoted(text: str) -> str:
    """Return the value without surrounding spaces and pairs of quotes.

    ``docker run --env-file`` and systemd units pass quotes on that a shell would
    remove; Ollama removes them from its own variables (``Var`` in
    ``envconfig/config.go``). A quote at one end only may be part of a secret, so it
    stays.
    """
    text = text.strip()
    while len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        text = text[1:-1].strip()
    return text


def without_quotes(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with its values as they were meant: see `unquoted`."""
    return {name: unquoted(text) for name, text in env.items()}


def home_folder(env: Mapping[str, str]) -> Path | None:
    """Return the user's home; None for a user without one, as in many containers."""
    for name in ("HOME", "USERPROFILE"):
        if (home := Path(unquoted(env.get(name, "")))).is_absolute():
            return home
    if sys.platform == "win32":
        return None
    try:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a user id without an account: some platforms choose one
        return None
    return home if home.is_absolute() else None


def expanded(path: Path, env: Mapping[str, str]) -> Path:
    """Return a path with the home for its ``~``, which stays if there is no home."""
    home = home_folder(env)
    if not path.parts or path.parts[0] != "~" or home is None:
        return path
    return home.joinpath(*path.parts[1:])


def is_without_home(path: Path) -> bool:
    """Tell whether a path still begins with ``~``, since no home was found for it."""
    return path.parts[:1] == ("~",)


def state_folder(env: Mapping[str, str]) -> Path:
    """Return the state folder if no setting names one.

    A relative ``XDG_STATE_HOME`` is ignored (XDG Base Directory Specification, 0.8).
    """
    base = expanded(Path(unquoted(env.get("XDG_STATE_HOME", ""))), env)
    if not base.is_absolute():
        base = expanded(Path("~/.local/state"), env)
    return base / "ollama-proxy"
