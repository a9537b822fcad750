"""A real executable `ovhai`, strict about flags, home folder and terminal.

The program only sends its arguments to the test, which answers with the output. It
accepts the commands and flags of OVHcloud's own guides and no others.
"""

import asyncio
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.ovh.cloud import ME
from tests.fakes.ovh.server import OvhServer, RefusedError

USER, PASSWORD = "user-1", "password-of-user-1"

_PROGRAM = r"""#!{bash}
# It runs thousands of times: Python takes 9 ms of the processor to start, bash 1.5.
LC_ALL=C
mapfile -d '' -t environment < /proc/self/environ
[[ /dev/stdin -ef /dev/null ]] && null=1 || null=0
told=("$null" "$#" "$@" "${{environment[@]}}")
length=0
for word in "${{told[@]}}"; do length=$((length + ${{#word}} + 1)); done
exec 3<>/dev/tcp/127.0.0.1/{port}
printf 'POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n' "$length" >&3
printf '%s\0' "${{told[@]}}" >&3
while IFS= read -r -u 3 line && [[ $line != $'\r' ]]; do :; done
read -r -u 3 code out_length err_length
IFS= read -r -u 3 -N "$out_length" out
IFS= read -r -u 3 -N "$err_length" err
printf %s "$out"
printf %s "$err" >&2
exit "$code"
"""
_BASH = shutil.which("bash")
_RUNS = _BASH is not None and Path("/proc/self/environ").exists()
_COMMON = {"--no-color": 0, "-o": 1}
_RUN = {
    **dict.fromkeys(
        ("-f", "--flavor", "-g", "--gpu", "-c", "--cpu", "-n", "--name"), 1
    ),
    **dict.fromkeys(("-p", "--default-http-port", "--grpc-port"), 1),
    **dict.fromkeys(("-e", "--env", "-v", "--volume", "-l", "--label"), 1),
    **dict.fromkeys(("--replicas", "--auto-min-replicas", "--auto-max-replicas"), 1),
    **dict.fromkeys(("--auto-resource-type", "--auto-resource-usage-threshold"), 1),
    **dict.fromkeys(("--probe-path", "--probe-port"), 1),
    **{
        f"--auto-custom-{name}": 1
        for name in (
            "api-url",
            "metric-format",
            "value-location",
            "target-value",
            "metric-aggregation-type",
        )
    },
    "--auto-scale-down-stabilization-window-seconds": 1,
    "--unsecure-http": 0,
}
_COMMANDS: dict[tuple[str, ...], dict[str, int]] = {
    ("app", "run"): _RUN,
    ("app", "list"): {},
    ("app", "get"): {},
    ("app", "start"): {},
    ("app", "stop"): {},
    ("app", "delete"): {"--force": 0},
    ("app", "logs"): {"-f": 0},
    ("app", "set-label"): {},
    ("capabilities", "flavor", "list"): {},
    ("config", "set"): {},
    ("login",): {"--username": 1, "--password-from-env": 1},
    ("me",): {},
}


@dataclass(slots=True)
class Said:
    """What the program prints, and how it ends."""

    out: str = ""
    err: str = ""
    code: int = 0


@dataclass(slots=True)
class OvhCommand:
    """The program's other half. It acts on the same cloud as the API.

    The script of ``server`` applies to it, too: ``lost-after`` and ``slow`` then hang
    until the program is killed; ``prompt`` prints a question instead of JSON,
    ``nested`` output that no parser reads to its end. ``logged_in``: homes are logged
    in from the start; ``wanted_context``: only those with this log-in.
    """

    server: OvhServer
    logged_in: bool = True
    wanted_context: str | None = None
    homes: dict[str, str] = field(default_factory=dict)
    entered: set[str] = field(default_factory=set)
    argv: list[list[str]] = field(default_factory=list)
    logins: int = 0

    async def handle(self, request: web.Request) -> web.Response:
        told = _told(await request.read())
        self.argv.append(told["argv"])
        said = await self._said(told)
        out, err = said.out.encode(), said.err.encode()
        return web.Response(
            body=b"%d %d %d\n" % (said.code, len(out), len(err)) + out + err
        )

    async def _said(self, told: dict[str, Any]) -> Said:
        environment = told["environment"]
        home = environment.get("HOME", "")
        own = environment.get("XDG_CONFIG_HOME") == f"{home}/.config"
        if not own or home == str(Path.home()) or not told["stdin_is_null"]:
            self.server.violations.append(f"ovhai in {home!r}, {told['stdin_is_null']}")
            return Said(err="no folder of its own, or a terminal", code=1)
        try:
            command, options, words = _parsed(told["argv"])
        except ValueError as error:
            self.server.violations.append(f"ovhai {error}")
            return Said(err=f"error: {error}", code=2)
        return await self._carried_out(command, options, words, home, environment)

    async def _carried_out(
        self,
        command: tuple[str, ...],
        options: dict[str, list[str]],
        words: list[str],
        home: str,
        environment: dict[str, str],
    ) -> Said:
        if command == ("config", "set"):
            self.homes[home] = words[0]
            _configure(home, words[0])
            return Said()
        if command == ("login",):
            return self._login(options, home, environment)
        if not self._is_logged_in(home):
            return Said(err="AI Training error: not authenticated", code=1)
        return await self._asked(command, options, words, home)

    def _is_logged_in(self, home: str) -> bool:
        if self.wanted_context is not None:
            context = Path(home, ".config/ovhai/context.json")
            return context.read_text() == self.wanted_context
        return self.logged_in or home in self.entered

    async def _asked(
        self,
        command: tuple[str, ...],
        options: dict[str, list[str]],
        words: list[str],
        home: str,
    ) -> Said:
        """Do what a command asks of the platform, unless that goes wrong."""
        name = _NAMES[command]
        fault = self.server.fault(name)
        if fault in {"slow", "lost-before"}:
            await self._hang()
        try:
            if fault.isdecimal():
                _refuse(int(fault))
            answer = self._act(name, home, options, words)
            if fault == "html-502-after":
                _refuse(502)
        except RefusedError as error:
            said = f"AI Training error: request error: {error.status}: {error}"
            return Said(err=said, code=1)
        if fault == "lost-after":
            await self._hang()
        if fault == "prompt":
            return Said(out="A new version is available. Upgrade now? [y/N]")
        if fault == "nested":
            return Said(out="[" * 100_000)
        if name == "log":
            return Said(out=str(answer))
        return Said(out="" if answer is None else json.dumps(answer))

    async def _hang(self) -> None:
        await self.server.closing.wait()

    def _login(
        self, options: dict[str, list[str]], home: str, environment: dict[str, str]
    ) -> Said:
        self.logins += 1
        given = environment.get(options["--password-from-env"][0])
        if options["--username"] != [USER] or given != PASSWORD:
            return Said(err="AI Training error: not authenticated", code=1)
        self.entered.add(home)
        return Said()

    def _act(
        self, name: str, home: str, options: dict[str, list[str]], words: list[str]
    ) -> Any:
        server, config = self.server, Path(home, ".config/ovhai/config.json")
        region = str(json.loads(config.read_text())["current"])
        server.calls.append(name)
        if name == "me":
            return ME
        if name == "list":
            return server.cloud.listed(region)
        if name == "create":
            return server.create(region, _spec(region, options, words))
        path = f"/v1/app/{words[0] if words else ''}"
        query = {"force": "true"} if "--force" in options else {}
        body = {"name": words[1], "value": words[2]} if name == "label" else None
        return server.act(name, region, path, body, query)


_NAMES = {
    ("app", "run"): "create",
    ("app", "list"): "list",
    ("app", "get"): "get",
    ("app", "start"): "start",
    ("app", "stop"): "stop",
    ("app", "delete"): "delete",
    ("app", "logs"): "log",
    ("app", "set-label"): "label",
    ("capabilities", "flavor", "list"): "flavors",
    ("me",): "me",
}


def _parsed(argv: list[str]) -> tuple[tuple[str, ...], dict[str, list[str]], list[str]]:
    """Return command, options and words; raises `ValueError` for what is unknown."""
    known = [name for name in _COMMANDS if tuple(argv[: len(name)]) == name]
    if not known:
        raise ValueError(f"unknown command {argv[:3]}")
    command = max(known, key=len)
    flags, rest = _COMMANDS[command] | _COMMON, argv[len(command) :]
    options: dict[str, list[str]] = {}
    words: list[str] = []
    while rest:
        one, *rest = rest
        if not one.startswith("-"):
            words.append(one)
        elif one not in flags:
            raise ValueError(f"unexpected argument {one!r} of {' '.join(command)}")
        else:
            options.setdefault(one, []).extend(rest[: flags[one]])
            rest = rest[flags[one] :]
    return command, options, words


def _spec(
    region: str, options: dict[str, list[str]], words: list[str]
) -> dict[str, Any]:
    """Return the specification that a command line means."""
    units = {
        k: int(options[f"--{k}"][0]) for k in ("gpu", "cpu") if f"--{k}" in options
    }
    if not units:
        units = {"gpu": 1}  # a forgotten flag buys a GPU
    pairs = [text.partition("=") for text in options.get("--env", [])]
    labels = [text.partition("=") for text in options.get("--label", [])]
    return {
        "name": options["--name"][0],
        "image": words[0],
        "region": region,
        "resources": {"flavor": options["--flavor"][0], **units},
        "defaultHttpPort": int(options["--default-http-port"][0]),
        "envVars": [{"name": k, "value": v} for k, _, v in pairs],
        "labels": {k: v for k, _, v in labels},
    }


def _configure(home: str, region: str) -> None:
    """Write the region where the command keeps it: in its home folder."""
    config = Path(home, ".config/ovhai/config.json")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps({"current": region}))


def _refuse(status: int) -> None:
    raise RefusedError(status, "as the test wants it")


def _told(body: bytes) -> dict[str, Any]:
    """Return what the program says of itself, word by word, each ended by a NUL."""
    is_null, count, *words = [os.fsdecode(word) for word in body.split(b"\0")[:-1]]
    environment = words[int(count) :]
    return {
        "argv": words[: int(count)],
        "environment": dict(entry.split("=", 1) for entry in environment),
        "stdin_is_null": is_null == "1",
    }


async def install(command: OvhCommand, folder: Path) -> tuple[Path, web.AppRunner]:
    """Put the program into a folder; return its path, and what answers it."""
    if not _RUNS:
        pytest.skip("there is no bash, or no /proc")
    app = web.Application(client_max_size=1 << 20)
    app.router.add_post("/", command.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    program = await asyncio.to_thread(_write, folder, runner.addresses[0][1])
    return program, runner


def _write(folder: Path, port: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "ovhai"
    program.write_text(_PROGRAM.format(bash=_BASH, port=port))
    program.chmod(0o755)
    return program
