"""Read and change what one app has at Fly: machines, volumes and addresses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from ollama_proxy.backends.base.timing import STANDARD, CloudTiming
from ollama_proxy.backends.fly.calls import AppCalls
from ollama_proxy.backends.fly.failures import NotYetError
from ollama_proxy.backends.fly.machines import (
    Machine,
    Volume,
    read_machine,
    read_machines,
    read_volume,
    read_volumes,
)
from ollama_proxy.backends.patience import Sleep
from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import BackendError, NotFoundError, TransientError

_LOCK_S = 15
_WAIT_S = 20


class FlyApi:
    """Reads and changes the machines, volumes and addresses of one app."""

    def __init__(
        self,
        app: str,
        *,
        url: str,
        token: str,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
        timing: CloudTiming = STANDARD,
    ) -> None:
        self.app = app
        self._calls = AppCalls(
            app, url=url, token=token, clock=clock, sleep=sleep, timing=timing
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._calls.aclose()

    async def machines(self) -> list[Machine]:
        """Return every machine of the app, ours or not; an empty list proves nothing.

        Raises `NoAppError` if there is no such app.
        """
        return self._calls.read(read_machines, await self._calls.listed("/machines"))

    async def machine(self, machine_id: str) -> Machine:
        """Return one machine."""
        return self._calls.read(
            read_machine, await self._calls.call("GET", f"/machines/{machine_id}")
        )

    async def events(self, machine_id: str, *, limit: int) -> object:
        """Return the newest events of a machine, as Fly sends them."""
        path = f"/machines/{machine_id}/events"
        return await self._calls.call("GET", path, query={"limit": limit})

    async def create(self, name: str, region: str, config: dict[str, Any]) -> Machine:
        """Make a machine that does not run yet, locked by us for some seconds.

        A repeated call makes no second one: it raises `NameTakenError`.
        """
        body = {
            "name": name,
            "region": region,
            "config": config,
            "skip_launch": True,
            "lease_ttl": _LOCK_S,
        }
        return self._calls.read(
            read_machine, await self._calls.call("POST", "/machines", body=body)
        )

    async def update(
        self, machine: Machine, config: dict[str, Any], nonce: str
    ) -> Machine:
        """Give a stopped machine another configuration, unless it has changed since."""
        body = {
            "config": config,
            "current_version": machine.instance_id,
            "skip_launch": True,
        }
        path = f"/machines/{machine.id}"
        return self._calls.read(
            read_machine, await self._calls.call("POST", path, body=body, nonce=nonce)
        )

    async def start(self, machine_id: str, nonce: str) -> None:
        """Start a machine."""
        await self._calls.call(
            "POST", f"/machines/{machine_id}/start", body={}, nonce=nonce
        )

    async def stop(self, machine_id: str, nonce: str) -> None:
        """Ask for a machine to stop."""
        body = {"signal": "SIGTERM", "timeout": "30s"}
        await self._calls.call(
            "POST", f"/machines/{machine_id}/stop", body=body, nonce=nonce
        )

    async def suspend(self, machine_id: str, nonce: str) -> None:
        """Ask for a machine's memory to be kept on disk."""
        await self._calls.call(
            "POST", f"/machines/{machine_id}/suspend", body={}, nonce=nonce
        )

    async def destroy(self, machine_id: str, nonce: str | None) -> None:
        """Ask for a machine to be destroyed, running or not."""
        path = f"/machines/{machine_id}"
        query: dict[str, str | int] = {"force": "true"}
        await self._calls.call("DELETE", path, query=query, nonce=nonce)

    async def mark(self, machine_id: str, name: str, value: str) -> None:
        """Set a key of a machine's metadata, without a restart."""
        path = f"/machines/{machine_id}/metadata/{name}"
        await self._calls.call("POST", path, body={"value": value})

    async def reaches(self, machine: Machine, state: str) -> bool:
        """Wait a while for a state of this version; False if it is not there yet."""
        query: dict[str, str | int] = {"state": state, "timeout": _WAIT_S}
        if machine.instance_id:
            query["version"] = machine.instance_id
        path = f"/machines/{machine.id}/wait"
        try:
            answer = await self._calls.call(
                "GET", path, query=query, timeout_s=_WAIT_S + 15.0
            )
        except NotFoundError:
            return state == "destroyed"
        except NotYetError:
            return False
        return bool(isinstance(answer, dict) and answer.get("ok"))

    @contextlib.asynccontextmanager
    async def machine_lock(self, machine_id: str) -> AsyncIterator[str]:
        """Hold the lock of a machine, which Fly calls its lease, while it is changed.

        Yields the nonce that each change has to carry. Raises `ConflictError` if
        another process holds the lock.
        """
        path = f"/machines/{machine_id}/lease"
        body = {"description": "ollama-proxy", "ttl": _LOCK_S}
        answer = await self._calls.call("POST", path, query={"ttl": _LOCK_S}, body=body)
        nonce = _nonce_of(answer)
        try:
            yield nonce
        finally:
            await self.unlock(machine_id, nonce)

    async def unlock(self, machine_id: str, nonce: str) -> None:
        """Give a machine's lock back; if that fails it ends by itself after 15 s."""
        with contextlib.suppress(BackendError):
            await self._calls.call(
                "DELETE", f"/machines/{machine_id}/lease", nonce=nonce
            )

    async def volumes(self) -> list[Volume]:
        """Return the volumes of the app, as `machines` does."""
        return self._calls.read(read_volumes, await self._calls.listed("/volumes"))

    async def volume(self, volume_id: str) -> Volume:
        """Return one volume."""
        return self._calls.read(
            read_volume, await self._calls.call("GET", f"/volumes/{volume_id}")
        )

    async def create_volume(
        self,
        name: str,
        region: str,
        size_gb: int,
        *,
        guest: dict[str, Any],
        source: str | None = None,
    ) -> Volume:
        """Make a volume, or a copy of one elsewhere; a repeated call makes a second.

        ``guest``: CPUs and memory of its machine, which the volume's host must have
        free.
        """
        body: dict[str, Any] = {
            "name": name,
            "region": region,
            "auto_backup_enabled": False,
            "encrypted": True,
            "compute": guest,
        }
        body |= {"source_volume_id": source} if source else {"size_gb": size_gb}
        return self._calls.read(
            read_volume, await self._calls.call("POST", "/volumes", body=body)
        )

    async def delete_volume(self, volume_id: str) -> None:
        """Destroy a volume that no machine has."""
        await self._calls.call("DELETE", f"/volumes/{volume_id}")

    async def snapshots(self, volume_id: str) -> list[dict[str, Any]]:
        """Return the snapshots of a volume, which outlive it."""
        found = await self._calls.call("GET", f"/volumes/{volume_id}/snapshots")
        return found if isinstance(found, list) else []

    async def addresses(self) -> list[dict[str, Any]]:
        """Return the addresses of the app, as `machines` does."""
        found = await self._calls.listed("/ip_assignments")
        return list(found.get("ips") or []) if isinstance(found, dict) else []

    async def assign(self, kind: str) -> str:
        """Give the app a ``shared_v4``, ``v6`` or ``private_v6`` address; return it.

        Fly's response may be empty: then "" is returned.
        """
        made = await self._calls.call("POST", "/ip_assignments", body={"type": kind})
        return str(made.get("ip") or "") if isinstance(made, dict) else ""

    async def release_address(self, address: str) -> None:
        """Take an address from the app."""
        await self._calls.call("DELETE", f"/ip_assignments/{address}")

    async def show_app(self) -> dict[str, Any]:
        """Return the app."""
        found = await self._calls.call("GET", "")
        return found if isinstance(found, dict) else {}

    async def create_app(self, org: str) -> None:
        """Make the app."""
        body = {"name": self.app, "org_slug": org}
        await self._calls.call("POST", "/apps", body=body, whole=True)

    async def delete_app(self) -> None:
        """Delete the app."""
        await self._calls.call("DELETE", "")

    async def token(self) -> list[dict[str, Any]]:
        """Return what the token is for."""
        found = await self._calls.call("GET", "/tokens/current", whole=True)
        return list(found.get("tokens") or []) if isinstance(found, dict) else []

    async def all_regions(self) -> list[dict[str, Any]]:
        """Return every region of Fly."""
        found = await self._calls.call("GET", "/platform/regions", whole=True)
        return list(found.get("regions") or []) if isinstance(found, dict) else []

    async def placements(
        self, org: str, region: str, guest: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Return where there is room for one machine, without making it."""
        body = {"org_slug": org, "region": region, "count": 1, "compute": guest}
        found = await self._calls.call(
            "POST", "/platform/placements", body=body, whole=True
        )
        return list(found.get("regions") or []) if isinstance(found, dict) else []


def _nonce_of(answer: object) -> str:
    """Return the nonce of a new lock, bare or wrapped as older servers have it."""
    data = answer.get("data", answer) if isinstance(answer, dict) else {}
    nonce = data.get("nonce") if isinstance(data, dict) else None
    if not isinstance(nonce, str):
        raise TransientError("a lease came without its nonce; it ends by itself")
    return nonce
