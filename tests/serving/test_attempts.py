"""How one request goes from node to node, with fakes for the leases."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from ollama_proxy.base.errors import InstanceLostError, UpstreamError
from ollama_proxy.base.tasks import start_task
from ollama_proxy.fleet.lease import Lease
from ollama_proxy.serving.attempts import HELD_BYTES, Attempts, HeldAnswer, hold
from ollama_proxy.upstream.client import Answer

NO_FIELDS = CIMultiDictProxy(CIMultiDict[str]())
REFUSED = UpstreamError("it refused the connection", arrived=False)
BROKEN = UpstreamError("it closed the connection", arrived=True)


@dataclass(eq=False)
class FakeLease:
    """The lease of a node, or of an instance if it has no ``node_id``."""

    name: str
    is_node: bool = True
    was_cut: bool = False
    is_held: bool = True
    told: list[str] = field(default_factory=list)
    looks: int = 0

    @property
    def node_id(self) -> str | None:
        return self.name if self.is_node else None

    @property
    def launch_id(self) -> str:
        return f"{self.name}#1"

    def __enter__(self) -> "FakeLease":
        return self

    def __exit__(self, *_: object) -> None:
        self.is_held = False

    def check_now(self) -> None:
        self.looks += 1

    def failed(self, reason: str) -> None:
        self.told.append(reason)

    def answered(self) -> None:
        self.told.append("answered")


def held(status: int, body: bytes = b'{"error":"no"}') -> HeldAnswer:
    return HeldAnswer(status, "Reason", NO_FIELDS, body)


class Case:
    """Nodes a, b, c and d in this order, and what each does with the request."""

    def __init__(
        self,
        *outcomes: HeldAnswer | UpstreamError | int,
        may_repeat: bool = False,
        can_repeat: bool = True,
        tried: tuple[str, ...] = (),
        nodes: str = "abcd",
        instance: str = "",
    ) -> None:
        self.leases = [FakeLease(name, name != instance) for name in nodes]
        self.asked: list[str] = []
        self.is_leased = False
        self.attempts = Attempts(
            cast("tuple[()]", tried),
            self._lease_next,
            may_repeat=may_repeat,
            can_repeat=lambda: can_repeat,
        )
        self._outcomes = list(outcomes)

    async def _lease_next(self, tried: tuple[str, ...]) -> Lease | None:
        free = (one for one in self.leases if one.launch_id not in tried)
        self.is_leased = True
        return cast("Lease | None", next(free, None))

    async def _ask(self, lease: Lease) -> str | HeldAnswer:
        fake = cast("FakeLease", lease)
        assert fake.is_held
        assert all(not one.is_held or one.name not in self.asked for one in self.leases)
        self.asked.append(fake.name)
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, UpstreamError):
            raise outcome
        if isinstance(outcome, int):
            self.attempts.note_answer(lease, outcome)
            return f"{fake.name} answered {outcome}"
        return outcome

    async def run(self) -> str | HeldAnswer:
        first = cast("Lease", self.leases[0])
        return await self.attempts.run(first, self._ask)

    def told_of(self, name: str) -> list[str]:
        return next(one.told for one in self.leases if one.name == name)


async def test_a_request_that_succeeds_asks_one_node() -> None:
    case = Case(200)

    assert await case.run() == "a answered 200"
    assert case.asked == ["a"]
    assert case.told_of("a") == ["answered"]


@pytest.mark.parametrize("failure", [REFUSED, held(502), held(503), held(504)])
async def test_the_next_node_answers_for_one_that_fails(
    failure: HeldAnswer | UpstreamError,
) -> None:
    case = Case(failure, 200)

    assert await case.run() == "b answered 200"
    assert case.asked == ["a", "b"]
    assert case.told_of("b") == ["answered"]


async def test_a_lease_is_given_back_before_the_next_node_is_asked() -> None:
    case = Case(held(503), REFUSED, 200)

    await case.run()

    assert [one.is_held for one in case.leases] == [False, False, False, True]


async def test_three_nodes_are_asked_and_the_last_answer_passes() -> None:
    case = Case(held(502, b"first"), held(503, b"second"), held(504, b"third"))

    told = await case.run()

    assert isinstance(told, HeldAnswer)
    assert (told.status, told.body) == (504, b"third")
    assert case.asked == ["a", "b", "c"]


async def test_nodes_that_another_server_has_tried_count() -> None:
    case = Case(REFUSED, REFUSED, tried=("x#1",))

    with pytest.raises(UpstreamError):
        await case.run()
    assert case.asked == ["a", "b"]
    assert case.attempts.tried == ("x#1", "a#1", "b#1")


async def test_what_each_node_did_is_in_the_error_if_none_answers() -> None:
    case = Case(REFUSED, REFUSED, nodes="ab")

    with pytest.raises(UpstreamError) as caught:
        await case.run()

    refused = "it refused the connection"
    assert str(caught.value) == f"a: {refused}; b: {refused}"
    assert not caught.value.arrived


async def test_a_break_after_sending_ends_it_unless_it_may_be_repeated() -> None:
    once, again = Case(BROKEN), Case(BROKEN, 200, may_repeat=True)

    with pytest.raises(UpstreamError) as caught:
        await once.run()

    assert caught.value.arrived
    assert once.asked == ["a"]
    assert await again.run() == "b answered 200"


async def test_no_answer_of_before_hides_that_a_node_may_work_on_the_request() -> None:
    case = Case(held(503), BROKEN)

    with pytest.raises(UpstreamError) as caught:
        await case.run()

    assert caught.value.arrived
    assert str(caught.value).startswith("a: answered 503: no; b: ")


async def test_a_body_that_is_gone_is_sent_to_no_second_node() -> None:
    case = Case(held(503), can_repeat=False)

    told = await case.run()

    assert isinstance(told, HeldAnswer)
    assert case.asked == ["a"]


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (REFUSED, ["it refused the connection"]),
        (held(502), ["answered 502: no"]),
        (held(504, b"<html>"), ["answered 504"]),
        (held(503), []),
        (held(500), []),
    ],
)
async def test_only_what_is_a_nodes_failure_is_reported(
    failure: HeldAnswer | UpstreamError, words: list[str]
) -> None:
    case = Case(failure, 404)

    await case.run()

    assert case.told_of("a") == words
    assert case.told_of("b") == ["answered"]


async def test_a_500_is_reported_once_another_node_has_done_the_request() -> None:
    case = Case(held(500), 200)

    await case.run()

    assert case.told_of("a") == ["answered 500: no; another node did it"]


async def test_two_nodes_that_answer_500_are_right() -> None:
    case = Case(held(500, b"first"), held(500, b"second"))

    told = await case.run()

    assert isinstance(told, HeldAnswer)
    assert told.body == b"second"
    assert case.told_of("a") == case.told_of("b") == []


async def test_a_failing_answer_that_is_too_long_to_hold_is_reported() -> None:
    case = Case(502)

    assert await case.run() == "a answered 502"
    assert case.told_of("a") == ["answered 502"]


async def test_a_node_that_the_hub_lost_is_not_reported_to_it() -> None:
    case = Case(BROKEN)
    case.leases[0].was_cut = True

    with pytest.raises(UpstreamError):
        await case.run()
    assert case.told_of("a") == []


async def test_an_instance_of_ours_answers_for_a_node_and_is_asked_last() -> None:
    case = Case(held(503), REFUSED, instance="b")

    told = await case.run()

    assert isinstance(told, HeldAnswer)
    assert case.asked == ["a", "b"]
    assert case.leases[1].looks == 1
    assert case.attempts.tried == ("a#1",)


async def test_a_request_that_ends_between_two_nodes_holds_none() -> None:
    case = Case(REFUSED, 200)
    running = start_task(case.run(), name="run")
    while case.told_of("a") != ["it refused the connection"]:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})

    assert case.asked == ["a"]
    assert not case.is_leased


class FakeAnswer:
    """An answer whose body comes in chunks, and may break off."""

    reason, headers = "Reason", NO_FIELDS

    def __init__(self, *chunks: bytes, status: int = 502, breaks: bool = False) -> None:
        self.status, self._chunks, self._breaks = status, chunks, breaks

    async def begun(self) -> None:
        if self._breaks and not self._chunks:
            raise InstanceLostError("it closed the connection")

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._breaks:
            raise InstanceLostError("it closed the connection")


def answer(*chunks: bytes, status: int = 502, breaks: bool = False) -> Answer:
    return cast("Answer", FakeAnswer(*chunks, status=status, breaks=breaks))


async def test_a_short_answer_is_held_as_it_is() -> None:
    told = await hold(answer(b"a" * (HELD_BYTES - 1), b"b"))

    assert isinstance(told, HeldAnswer)
    assert told == HeldAnswer(502, "Reason", NO_FIELDS, told.body)
    assert told.body == b"a" * (HELD_BYTES - 1) + b"b"


async def test_an_answer_that_is_too_long_to_hold_passes_from_its_first_byte() -> None:
    told = await hold(answer(b"a" * HELD_BYTES, b"b", b"c"))

    assert told is not None
    assert not isinstance(told, HeldAnswer)
    assert b"".join([part async for part in told]) == b"a" * HELD_BYTES + b"bc"


async def test_a_failing_answer_that_breaks_off_leaves_nothing_to_pass() -> None:
    with pytest.raises(UpstreamError, match="answered 502, and broke off") as caught:
        await hold(answer(b"a", breaks=True))
    assert not caught.value.arrived


async def test_an_answer_that_goes_to_the_client_is_not_read() -> None:
    assert await hold(answer(b"a", status=200)) is None
    assert await hold(answer(b'{"detail":"no such model"}', status=404)) is None


async def test_an_answer_without_a_byte_of_its_body_is_none() -> None:
    with pytest.raises(UpstreamError, match="answered 200, and broke off") as caught:
        await hold(answer(status=200, breaks=True))
    assert caught.value.arrived


@pytest.mark.parametrize("status", [401, 403])
async def test_an_agent_that_refuses_the_hub_has_not_done_the_request(
    status: int,
) -> None:
    refusal = b'{"error":"not you","detail":"not you"}'
    with pytest.raises(UpstreamError, match="refuses the hub: not you") as caught:
        await hold(answer(refusal[:9], refusal[9:], status=status))
    assert not caught.value.arrived


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", [b'{"error":"unauthorized"}', b"", b'{"detail":[1]}'])
async def test_what_ollama_itself_refuses_goes_to_the_client(
    status: int, body: bytes
) -> None:
    told = await hold(answer(body, status=status))

    assert told is not None
    assert not isinstance(told, HeldAnswer)
    assert b"".join([part async for part in told]) == body
