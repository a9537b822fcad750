"""A cloud over `ManagedBackend` keeps the contract, and buys nothing twice."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from ollama_proxy.backends.base.provisioning_journal import SETTLE_S
from ollama_proxy.backends.base.sightings import APART_S
from ollama_proxy.backends.contract import LAUNCH, OTHER, BackendContract
from ollama_proxy.base.errors import (
    BackendError,
    CapacityError,
    OutcomeUnknownError,
    TransientError,
    TwinError,
)
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.backend import Backend, Phase
from ollama_proxy.store.memory import MemoryNotes
from tests.backends.base.toy.backend import LEASE_S, ToyBackend
from tests.backends.base.toy.provider import Provider
from tests.virtual_time import JumpingClock

OURS = "0123456789abcdef"


async def stage(_: web.Request) -> web.Response:
    return web.Response(text="ready")


async def heartbeat(_: web.Request) -> web.Response:
    return web.Response(status=204)


@contextlib.asynccontextmanager
async def provided() -> AsyncIterator[Provider]:
    """Open a provider whose boxes are ready at once."""
    app = web.Application()
    app.router.add_get("/{box}/-/stage", stage)
    app.router.add_post("/{box}/-/heartbeat", heartbeat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield Provider(f"http://{host}:{port}")
    finally:
        await runner.cleanup()


class TestDeleted(BackendContract):
    uses_standby = False

    @pytest.fixture(autouse=True)
    async def with_a_provider(self) -> AsyncIterator[None]:
        async with provided() as self.provider:
            self.notes: dict[str, MemoryNotes] = {}
            yield
            assert self.provider.paid == []

    async def open_backend(self, owner_id: str) -> Backend:
        notes = self.notes.setdefault(owner_id, MemoryNotes())
        clock = JumpingClock()
        return ToyBackend(
            self.provider,
            owner_id=owner_id,
            notes=notes,
            clock=clock,
            uses_standby=self.uses_standby,
        )


class TestKept(TestDeleted):
    uses_standby = True


class Deployment:
    """One deployment in a provider, through any number of processes."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.notes = MemoryNotes()
        self.clock = JumpingClock()
        self._opened = contextlib.AsyncExitStack()

    def open(self, *, uses_standby: bool = False) -> ToyBackend:
        backend = ToyBackend(
            self.provider,
            owner_id=OURS,
            notes=self.notes,
            clock=self.clock,
            uses_standby=uses_standby,
            remembers=lambda launch_id: launch_id in {LAUNCH, OTHER},
        )
        self._opened.push_async_callback(backend.aclose)
        return backend

    async def aclose(self) -> None:
        await self._opened.aclose()


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    async with provided() as provider:
        made = Deployment(provider)
        try:
            yield made
        finally:
            await made.aclose()


async def test_what_was_made_without_an_answer_is_found_by_its_tags(
    deployment: Deployment,
) -> None:
    deployment.provider.loses = 1
    backend = deployment.open()

    with pytest.raises(OutcomeUnknownError):
        await backend.start(LAUNCH)
    assert (await backend.inspect(LAUNCH)).phase is Phase.RUNNING
    await deployment.open().start(LAUNCH)  # a new process, and one that asks again

    assert deployment.provider.created == 1


async def test_nothing_is_made_while_what_was_asked_for_may_turn_up(
    deployment: Deployment,
) -> None:
    deployment.provider.loses = 1
    backend = deployment.open()
    with pytest.raises(OutcomeUnknownError):
        await backend.start(LAUNCH)
    deployment.provider.hides = {"b0"}

    with pytest.raises(OutcomeUnknownError):
        await deployment.open().start(LAUNCH)
    assert (await backend.inspect(LAUNCH)).phase is Phase.PENDING
    deployment.clock.ahead_s += SETTLE_S + 1.0
    assert (await backend.inspect(LAUNCH)).phase is Phase.PENDING  # one look only
    deployment.clock.ahead_s += APART_S + 1.0

    assert (await backend.inspect(LAUNCH)).phase is Phase.GONE


async def test_of_two_instances_of_a_launch_the_older_stays(
    deployment: Deployment,
) -> None:
    deployment.provider.loses, deployment.provider.full = 1, {"north"}
    backend = deployment.open()
    with pytest.raises(OutcomeUnknownError):
        await backend.start(LAUNCH)
    deployment.provider.full = set()
    twice = dict(deployment.provider.boxes["b0"]["notes"])  # type: ignore[call-overload]  # a dict
    deployment.provider.create("north", twice)
    await backend.start(LAUNCH)

    assert deployment.provider.paid == ["b0"]


async def test_a_launch_goes_where_there_is_room(deployment: Deployment) -> None:
    deployment.provider.full = {"north"}
    backend = deployment.open()
    await backend.start(LAUNCH)

    assert deployment.provider.yards == {"b0": "south"}
    deployment.provider.full = {"north", "south"}
    with pytest.raises(CapacityError):
        await backend.start(OTHER)
    assert (await backend.inspect(OTHER)).phase is Phase.GONE


async def test_a_list_that_lacks_an_instance_ends_no_launch(
    deployment: Deployment,
) -> None:
    backend = deployment.open()
    await backend.start(LAUNCH)
    await backend.inspect(LAUNCH)
    deployment.provider.hides = {"b0"}

    assert await deployment.open().owned() == {LAUNCH}


async def test_what_is_listed_and_said_to_be_unknown_is_not_gone(
    deployment: Deployment,
) -> None:
    backend = deployment.open()
    await backend.start(LAUNCH)
    deployment.provider.denies = {"b0"}

    with pytest.raises(TransientError, match="and yet it is in the list"):
        await backend.inspect(LAUNCH)
    assert deployment.provider.paid == ["b0"]


async def test_a_location_that_does_not_answer_hides_nothing(
    deployment: Deployment,
) -> None:
    backend = deployment.open()
    await backend.start(LAUNCH)
    deployment.provider.silent = {"south"}

    with pytest.raises(BackendError):
        await backend.owned()


async def test_what_stands_by_is_started_again_and_not_made_anew(
    deployment: Deployment,
) -> None:
    backend = deployment.open(uses_standby=True)
    await backend.start(LAUNCH)
    await backend.inspect(LAUNCH)
    await backend.stop(LAUNCH)

    assert (await backend.inspect(LAUNCH)).phase is Phase.GONE
    assert (await backend.owned()) == set()
    assert deployment.provider.boxes["b0"]["power"] == "off"


async def test_a_second_instance_that_stands_by_is_swept_alone(
    deployment: Deployment,
) -> None:
    backend = deployment.open(uses_standby=True)
    for launch_id in (LAUNCH, OTHER):
        await backend.start(launch_id)
        await backend.inspect(launch_id)
    for launch_id in (LAUNCH, OTHER):
        await backend.stop(launch_id)
        await backend.inspect(launch_id)
    owned = await backend.owned()
    for name in owned:
        assert (await backend.inspect(name)).phase is Phase.PENDING
        await backend.stop(name)
        assert (await backend.inspect(name)).phase is Phase.GONE

    assert owned == {"box-b1"}
    assert deployment.provider.boxes.keys() == {"b0"}


async def test_an_instance_of_a_launch_is_no_stray_of_another_name(
    deployment: Deployment,
) -> None:
    backend = deployment.open()
    await backend.start(LAUNCH)
    await backend.stop(LaunchId("box-b0"))

    assert deployment.provider.paid == ["b0"]


async def test_what_lost_our_tags_is_left_alone(deployment: Deployment) -> None:
    backend = deployment.open()
    await backend.start(LAUNCH)
    deployment.provider.annotate("b0", {"op-owner": "somebody"})

    with pytest.raises(TransientError, match="does not carry our tags any more"):
        await backend.stop(LAUNCH)
    assert deployment.provider.paid == ["b0"]


async def test_a_lease_is_prolonged_while_somebody_wants_the_instance(
    deployment: Deployment,
) -> None:
    backend = deployment.open()
    await backend.start(LAUNCH)
    deployment.clock.ahead_s += LEASE_S - 1.0
    await backend.renew(LAUNCH, serves=True)
    deployment.clock.ahead_s += 2.0

    assert await deployment.open().sweep_expired(dry_run=False) == []
    deployment.clock.ahead_s += LEASE_S
    assert await backend.sweep_expired(dry_run=True) == ["box b0 in north (on)"]
    assert deployment.provider.paid == ["b0"]
    await backend.sweep_expired(dry_run=False)
    assert deployment.provider.paid == []


async def test_what_fails_in_one_location_keeps_no_other_from_being_swept(
    deployment: Deployment,
) -> None:
    deployment.provider.full = {"north"}
    await deployment.open().start(LAUNCH)
    deployment.provider.silent = {"north"}
    deployment.clock.ahead_s += 2.0 * LEASE_S

    with pytest.raises(BackendError, match="north does not answer"):
        await deployment.open().sweep_expired(dry_run=False)
    assert deployment.provider.paid == []


async def test_nothing_is_made_beside_a_twin(deployment: Deployment) -> None:
    backend = deployment.open()
    foreign = LaunchId("l00000000deadbeef")
    lease_end = deployment.clock.wall() + LEASE_S
    notes = backend._tags.of(foreign, lease_end=lease_end, spec="v1")
    deployment.provider.create("north", notes)

    with pytest.raises(TwinError):
        await backend.start(LAUNCH)
    assert deployment.provider.created == 1
