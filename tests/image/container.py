"""Runs a container of an image with crun, as an engine or a cluster would."""

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.image import needs
from tests.image.engine import Engine

_CLONE_NEWNET = 0x40000000
_CAPABILITY_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
# crun refuses the machine's mixture of both versions of cgroups, which nothing needs.
_CRUN = """mount -t tmpfs none /sys/fs/cgroup
exec crun --cgroup-manager=disabled --root="$0" "$@"
"""
DOCKERS = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD"),
    *("CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP"),
    *("CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"),
)
"""What Docker leaves to a container that nobody says anything about."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a container is run. ``user``: ``uid:gid``; None: the image's.

    ``volumes``: folders of the image on which a volume is mounted, owned as in the
    image, or by the running user if ``volumes_fit``. ``tmpfs``: those in memory.
    """

    user: str | None = None
    capabilities: Sequence[str] = ()
    read_only: bool = False
    volumes: Sequence[str] = ()
    volumes_fit: bool = False
    tmpfs: Sequence[str] = ()
    shm: bool = True
    arguments: Sequence[str] | None = None


class Container:
    """A started container, in a network of its own: only itself can be reached."""

    def __init__(
        self, engine: Engine, name: str, log: Path, root: Path, user: str
    ) -> None:
        self.root = root
        self.user = user
        self._engine = engine
        self._name = name
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it printed."""
        return self._log.read_text("utf-8", "replace")

    def start(self, bundle: Path) -> None:
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                self._crun("run", "--bundle", str(bundle), self._name),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def _crun(self, *arguments: str) -> list[str]:
        folder = str(self._engine.folder / "crun")
        unshare = ("unshare", "--mount", "--propagation=private", "--")
        return [*unshare, "sh", "-ec", _CRUN, folder, *arguments]

    def run(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        user: str = "0:0",
    ) -> tuple[int, str]:
        """Run a command inside; return its exit code, and what it printed."""
        more = [f"{name}={value}" for name, value in (env or {}).items()]
        done = subprocess.run(
            self._crun("exec", "--user", user, self._name, "env", *more, *command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its first process."""
        needs.run(*self._crun("kill", self._name, str(int(number))))

    def ended(self, within_s: float = 30.0) -> int:
        """Wait for its end; return its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on and on: {self.log}") from None

    def kill(self) -> None:
        """End whatever is left."""
        subprocess.run(
            self._crun("delete", "--force", self._name),
            capture_output=True,
            check=False,
            timeout=30,
        )
        if self._process is not None:
            self._process.wait(30)

    def ask(
        self,
        method: str,
        path: str,
        *,
        port: int,
        host: str = "127.0.0.1",
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Return the answer to a request, asked from inside its network."""
        connection = _Inside(self._pid(), host, port)
        sent = None if body is None else json.dumps(body)
        connection.request(
            method, path, sent, {"Connection": "close", **(headers or {})}
        )
        return connection.getresponse()

    def until_it_answers(self, path: str, *, port: int, status: int = 200) -> None:
        """Wait until a path answers with a status, or fail with the log."""
        deadline = time.perf_counter() + 30
        while True:
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                self.ask("GET", path, port=port) as answer,
            ):
                if answer.status == status:
                    return
            assert self._process is not None
            assert self._process.poll() is None, f"it has ended: {self.log}"
            assert time.perf_counter() < deadline, f"no answer: {self.log}"
            time.sleep(0.05)

    def _pid(self) -> int:
        done = subprocess.run(
            self._crun("state", self._name), capture_output=True, check=False
        )
        if done.returncode:
            raise ConnectionError("it is not there yet, or not any more")
        return int(json.loads(done.stdout)["pid"])


class _Inside(http.client.HTTPConnection):
    """A connection out of the network of a process."""

    def __init__(self, pid: int, host: str, port: int) -> None:
        super().__init__(host, port, timeout=60)
        self._pid = pid

    def connect(self) -> None:
        """Connect in a thread that has entered the network, and ends with it."""
        made: list[socket.socket | OSError] = []

        def enter() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            try:
                with Path(f"/proc/{self._pid}/ns/net").open("rb") as namespace:
                    if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")  # noqa: TRY301 - for the other thread
                made.append(
                    socket.create_connection((self.host, self.port), self.timeout)
                )
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        self.sock = made[0]


@contextlib.contextmanager
def container(
    engine: Engine, tag: str, manner: Manner | None = None, **env: str
) -> Iterator[Container]:
    """Start a container of an image; ``env`` comes to what the image sets."""
    manner = manner or Manner()
    root = engine.unpack(tag)
    bundle = engine.folder / f"bundle-{os.urandom(4).hex()}"
    bundle.mkdir()
    spec = _spec(engine.config(tag), root, bundle, manner, env)
    (bundle / "config.json").write_text(json.dumps(spec))
    ids = spec["process"]["user"]
    user = f"{ids['uid']}:{ids['gid']}"
    started = Container(engine, bundle.name, bundle / "log", root, user)
    try:
        started.start(bundle)
        yield started
    finally:
        started.kill()
        shutil.rmtree(bundle)


def _spec(
    config: Mapping[str, Any],
    root: Path,
    bundle: Path,
    manner: Manner,
    env: Mapping[str, str],
) -> dict[str, Any]:
    """Return the runtime's specification (opencontainers.org), as engines write it."""
    uid, gid, home = _who(root, manner.user or config["User"] or "0")
    of_image = dict(text.split("=", 1) for text in config["Env"])
    settings = {"HOME": home, **of_image, **env}
    command = manner.arguments if manner.arguments is not None else config["Cmd"]
    return {
        "ociVersion": "1.0.0",
        "root": {"path": str(root), "readonly": manner.read_only},
        "hostname": "container",
        "process": {
            "user": {"uid": uid, "gid": gid},
            "cwd": config["WorkingDir"] or "/",
            "args": [*(config["Entrypoint"] or ()), *(command or ())],
            "env": [f"{name}={value}" for name, value in settings.items()],
            "noNewPrivileges": not manner.capabilities,
            "capabilities": {key: [*manner.capabilities] for key in _CAPABILITY_SETS},
        },
        "mounts": [*_mounts(manner), *_volumes(root, bundle, manner, uid, gid)],
        "linux": {
            "namespaces": [
                {"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")
            ]
        },
    }


def _who(root: Path, user: str) -> tuple[int, int, str]:
    """Return uid, gid and home, as Docker finds them in the image."""
    name, _, group = user.partition(":")
    lines = (root / "etc/passwd").read_text().splitlines()
    for fields in (line.split(":") for line in lines):
        if name in {fields[0], fields[2]}:
            return int(fields[2]), int(group or fields[3]), fields[5]
    return int(name), int(group or 0), "/"


def _mounts(manner: Manner) -> list[dict[str, Any]]:
    memory = {"type": "tmpfs", "source": "tmpfs"}
    shm = {"destination": "/dev/shm", "options": ["nosuid", "nodev", "noexec"]}
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "options": ["nosuid", "mode=755"]} | memory,
        *([memory | shm] if manner.shm else []),
        *(memory | {"destination": path} for path in manner.tmpfs),
    ]


def _volumes(
    root: Path, bundle: Path, manner: Manner, uid: int, gid: int
) -> list[dict[str, Any]]:
    """Make the volumes: a fresh one is owned as the folder of the image below it."""
    mounts = []
    for path in manner.volumes:
        folder = bundle / f"volume{path.replace('/', '-')}"
        folder.mkdir()
        below = (root / path.lstrip("/")).stat()
        owner = (uid, gid) if manner.volumes_fit else (below.st_uid, below.st_gid)
        os.chown(folder, *owner)
        folder.chmod(below.st_mode & 0o7777)
        mounts.append(
            {
                "destination": path,
                "type": "bind",
                "source": str(folder),
                "options": ["rbind", "rw"],
            }
        )
    return mounts
