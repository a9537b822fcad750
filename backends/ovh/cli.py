"""Manage apps through the ``ovhai`` command, with a home folder of its own.

The command keeps region and log-in in its home, so each region has a home that belongs
to this deployment.
"""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.ovh.app_log import LOG_BYTES
from ollama_proxy.backends.ovh.apps import App, read_app, read_apps
from ollama_proxy.backends.ovh.command import (
    LONGEST,
    NotLoggedInError,
    OvhaiCommand,
    decoded,
)
from ollama_proxy.backends.ovh.driver import explain_account
from ollama_proxy.backends.ovh.flavors import Flavor, read_flavors
from ollama_proxy.backends.ovh.order import Order
from ollama_proxy.base.errors import (
    OutcomeUnknownError,
    TransientError,
)
from ollama_proxy.base.tasks import start_task

_PASSWORD = "OVHAI_LOGIN_PASSWORD"  # noqa: S105 - the variable's name


class CliDriver:
    """Runs the command for one region. ``home``: the folder it uses as its home.

    ``template``: the home of a person who has logged in. Without ``username`` and
    ``password`` it is copied, and copied again once it is newer. ``environment``: the
    command gets the variables that it needs to run and to reach the network.
    """

    hides_environment = False

    def __init__(
        self,
        region: str,
        *,
        program: str,
        home: Path,
        template: Path | None,
        environment: Mapping[str, str],
        username: str | None = None,
        password: str | None = None,
        timing: CloudTiming = STANDARD,
    ) -> None:
        self._region = region
        self._command = OvhaiCommand(
            program, home=home, environment=environment, timeout_s=timing.command_s
        )
        self._home = home
        self._template = template
        self._username = username
        self._password = password
        self._entered: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Wait for nothing: each call ends its own process."""
        if self._entered is not None:
            self._entered.cancel()
            await asyncio.gather(self._entered, return_exceptions=True)

    async def apps(self) -> list[App]:
        """Return every app."""
        answer = await self._read("app", "list")
        items = answer.get("items") if isinstance(answer, dict) else answer
        if not isinstance(items, list):
            raise TransientError("`ovhai app list` did not print a list")
        return read_apps(items)

    async def app(self, app_id: str) -> App:
        """Return one app."""
        return read_app(await self._read("app", "get", app_id))

    async def create(self, order: Order) -> App:
        """Make an app."""
        text = await self._call(["app", "run"], ["-o", "json", *order.arguments()])
        try:
            return read_app(decoded(text))
        except TransientError as error:
            raise OutcomeUnknownError(f"`ovhai app run`: {error}") from error

    async def start(self, app_id: str) -> None:
        """Start an app that is stopped."""
        await self._call(["app", "start"], [app_id])

    async def stop(self, app_id: str) -> None:
        """Ask for an app to stop."""
        await self._call(["app", "stop"], [app_id])

    async def delete(self, app_id: str, *, force: bool) -> None:
        """Ask for an app to be deleted."""
        forced = ["--force"] if force else []
        await self._call(["app", "delete"], [*forced, app_id])

    async def label(self, app_id: str, name: str, value: str) -> None:
        """Set a label of an app."""
        await self._call(["app", "set-label"], [app_id, name, value])

    async def log(self, app_id: str) -> str:
        """Return the end of what an app has printed."""
        return await self._call(["app", "logs"], [app_id], most=LOG_BYTES)

    async def flavors(self) -> list[Flavor]:
        """Return what the region sells."""
        return read_flavors(await self._read("capabilities", "flavor", "list"))

    async def whoami(self) -> str:
        """Return the user that is logged in."""
        return explain_account(await self._read("me"))

    async def _read(self, *command: str) -> object:
        return decoded(await self._call(command, ["-o", "json"]))

    async def _call(
        self, command: Sequence[str], options: Sequence[str], *, most: int = LONGEST
    ) -> str:
        """Return the end of what the command printed; it logs in if it is not."""
        await self._enter()
        try:
            return await self._command.run(command, options, most=most)
        except NotLoggedInError:
            if not await self._log_in():
                raise
        return await self._command.run(command, options, most=most)

    async def _enter(self) -> None:
        """Make the home once, with region and log-in."""
        if self._entered is None or self._entered.cancelled() or _failed(self._entered):
            self._entered = start_task(self._make_home(), name="ovhai home")
        await asyncio.shield(self._entered)

    async def _make_home(self) -> None:
        await self._copy_log_in()
        await self._command.run(["config", "set"], [self._region])

    async def _log_in(self) -> bool:
        """Log in again; False if there is nothing new to do it with."""
        if self._username is None:
            if not await self._copy_log_in():
                return False
            # Their log-in sets their region.
            await self._command.run(["config", "set"], [self._region])
            return True
        words = ["--username", self._username, "--password-from-env", _PASSWORD]
        await self._command.run(["login"], words, {_PASSWORD: self._password or ""})
        return True

    async def _copy_log_in(self) -> bool:
        """Copy the user's own log-in, if it is newer than ours."""
        if self._username is not None or self._template is None:
            return False
        source = self._template / ".config" / "ovhai"
        try:
            return await asyncio.to_thread(_copy_newer, source, self._home)
        except OSError as error:
            raise TransientError(
                f"the log-in can't be copied to {str(self._home)!r}"
                f" ({error.strerror}); make room and see to its rights, or set"
                " OLLAMA_PROXY_STATE_DIR to another folder"
            ) from error


def _failed(task: "asyncio.Task[None]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _copy_newer(source: Path, home: Path) -> bool:
    """Copy a log-in into a home, for us alone; False if it is no newer."""
    target = home / ".config" / "ovhai"
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_new = False
    for file in sorted(source.glob("*.json")) if source.is_dir() else ():
        own = target / file.name
        if own.exists() and own.stat().st_mtime >= file.stat().st_mtime:
            continue
        fresh = own.with_suffix(".new")
        shutil.copy2(file, fresh)
        fresh.chmod(0o600)
        fresh.rename(own)
        is_new = True
    return is_new
