"""Run OVH's own program ``ovhai`` once, as a subprocess.

It has no terminal, a time limit, and a process group that is killed as a whole. An
interrupted change may have been made.
"""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ollama_proxy.backends.foreign_words import plain_words
from ollama_proxy.backends.ovh.failures import Aim, failure, unanswered
from ollama_proxy.base.errors import (
    BackendError,
    CredentialsError,
    SpecError,
    TransientError,
)
from ollama_proxy.core.ollama.loose_json import UNREADABLE

_END_TIMEOUT_S = 5.0
LONGEST = 64 * 1024 * 1024
"""Longest output of the command; a list of apps has far less."""
_STATUS = re.compile(r"request error: (\d{3})\b")
_LOG_IN = "`ovhai login`, or OVH_AI_USERNAME and OVH_AI_PASSWORD"
_PASSED_ON = (
    "PATH",
    "LANG",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


class NotLoggedInError(CredentialsError):
    """Reports that the command is not logged in, or not any more; nothing was done."""


class OvhaiCommand:
    """Runs a program with a folder of ours as its home.

    ``environment``: it gets the variables that it needs to run and to reach the
    network.
    """

    def __init__(
        self,
        program: str,
        *,
        home: Path,
        environment: Mapping[str, str],
        timeout_s: float,
    ) -> None:
        self._program = program
        self._home = home
        self._given = environment
        self._timeout_s = timeout_s

    async def run(
        self,
        command: Sequence[str],
        options: Sequence[str],
        more: Mapping[str, str] | None = None,
        *,
        most: int = LONGEST,
    ) -> str:
        """Run the command once; raises the error that its failure means.

        The last ``most`` bytes of its output are kept. ``more``: additional variables.
        """
        named = " ".join(("ovhai", *command))
        arguments = (*command, "--no-color", *options)
        process = await self._begun(arguments, self._environment() | dict(more or {}))
        try:
            async with asyncio.timeout(self._timeout_s):
                out, err = await asyncio.gather(
                    _end_of(process.stdout, most), _end_of(process.stderr, most)
                )
                await process.wait()
        except TimeoutError as error:
            await _end(process)
            limit = f"{self._timeout_s:.0f} s"
            message = f"`{named}` took longer than {limit} and was killed"
            raise unanswered(_aim(command), message) from error
        except BaseException:
            await _end(process)
            raise
        if process.returncode and process.returncode < 0:
            name = signal.strsignal(-process.returncode) or -process.returncode
            message = f"`{named}` was ended by a signal ({name}); check OVHAI_BIN"
            raise unanswered(_aim(command), message)
        if process.returncode:
            raise _named(command, f"`{named}` failed: {_text(err)}")
        return out.decode("utf-8", "replace")

    async def _begun(
        self, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        """Start the program in a group of its own, without a terminal."""
        try:
            return await asyncio.create_subprocess_exec(
                self._program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            message = f"`{self._program}` can't be run: {error.strerror}; set OVHAI_BIN"
            raise SpecError(message) from error

    def _environment(self) -> dict[str, str]:
        kept = {name: self._given[name] for name in _PASSED_ON if name in self._given}
        home = str(self._home)
        return kept | {"HOME": home, "XDG_CONFIG_HOME": f"{home}/.config"}


def decoded(text: str) -> object:
    """Return printed JSON; raises `TransientError` for anything else, a prompt say."""
    try:
        return msgspec.json.decode(text)
    except UNREADABLE as error:
        words = plain_words(text)
        message = f"the command printed no JSON, but {words!r}; check OVHAI_BIN"
        raise TransientError(message) from error


async def _end_of(stream: asyncio.StreamReader | None, most: int) -> bytes:
    """Return the last so many bytes of a stream, once it has ended."""
    kept = bytearray()
    while stream is not None and (part := await stream.read(1 << 16)):
        kept += part
        del kept[:-most]
    return bytes(kept)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the whole group of a process, whose children may outlive it; see it end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # Not `wait`, which does not wait for the pipes: open pipes cause a warning.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_TIMEOUT_S):
            await process.communicate()


def _named(command: Sequence[str], said: str) -> BackendError:
    """Return the error by what to do next; exit codes are not documented."""
    if "not authenticated" in said:
        return NotLoggedInError(
            f"{said}; run `ovhai login`, or set OVH_AI_USERNAME and OVH_AI_PASSWORD"
        )
    match = _STATUS.search(said)
    status = int(match[1]) if match else None
    return failure(_aim(command), status, said, setting=_LOG_IN)


def _aim(command: Sequence[str]) -> Aim:
    if tuple(command) == ("app", "run"):
        return Aim.CREATE
    reads = command[0] != "app" or command[1] in {"list", "get", "logs"}
    return Aim.READ if reads else Aim.CHANGE


def _text(err: bytes) -> str:
    """Return the beginning of what the command complained of, on one line."""
    return plain_words(err.decode("utf-8", "replace")) or "no word why"
