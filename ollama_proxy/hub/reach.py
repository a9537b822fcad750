"""Find how each node is reached: where it proved that it is that node.

A former agent proves nothing, so it is called only where its beats come from.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.core.nodes.addresses import Claim, OwnAddresses, allowed_addresses
from ollama_proxy.core.nodes.beat import Beat
from ollama_proxy.core.nodes.node_keys import NodeKey
from ollama_proxy.hub.authority import HubAuthority
from ollama_proxy.hub.node_keyring import NodeKeyring
from ollama_proxy.hub.node_proof import Prove, url_of
from ollama_proxy.hub.ports import UNKNOWN_LINK, NodeLink, Sender
from ollama_proxy.upstream.endpoint import Link, Upstream

MOST_AT_ONCE: Final = 32
"""How many nodes are asked for their proof at a time."""

AGAIN_S: Final = 5.0
"""How long a node that proved nothing is not asked again, however often it beats."""

APART_S: Final = 1.0
"""Time between two questions about one node: it could have the hub knock anywhere."""

_UNTAKEN = NodeLink(
    fault="nodes without a key are not taken any more; have it join, by the line that"
    " `ollama-proxy node-token` prints"
)
_LEFT = NodeLink(fault="the hub has no key of this node any more; it has to join again")


@dataclass(frozen=True, slots=True)
class _Question:
    """Holds what a proof is asked for: of which process of a node, and where."""

    key: NodeKey
    boot_id: str
    urls: tuple[str, ...]

    def is_of_same(self, other: "_Question") -> bool:
        """Tell whether both are about one process of one node."""
        return (self.key, self.boot_id) == (other.key, other.boot_id)

    def asks_same(self, other: "_Question") -> bool:
        """Tell whether the answer to one is that to the other, whatever the order."""
        return self.is_of_same(other) and set(self.urls) == set(other.urls)


@dataclass(slots=True)
class _Place:
    """Holds what is known of one node; ``asked_at``: when asking ended, by the loop."""

    question: _Question
    link: NodeLink = UNKNOWN_LINK
    asking: asyncio.Task[None] | None = None
    asked_at: float = 0.0

    def has_proved(self, question: _Question) -> bool:
        """Tell whether a URL of a question is known to be that node's.

        Beats may come over IPv4 and IPv6 in turn, from addresses that change.
        """
        proved = self.link.upstream
        is_claimed = proved is not None and proved.url in question.urls
        return is_claimed and self.question.is_of_same(question)


class Reach:
    """Implements `ollama_proxy.hub.ports.NodeLinks`.

    ``prove`` asks addresses; ``own``: where this process listens. ``takes_former``
    tells whether nodes without a key are used. Set ``relink`` to what is called with
    the name of a node whose link has changed.
    """

    def __init__(
        self,
        authority: HubAuthority,
        keyring: NodeKeyring,
        prove: Prove,
        own: Callable[[], OwnAddresses],
        *,
        takes_former: Callable[[], bool] = lambda: True,
        most_at_once: int = MOST_AT_ONCE,
        again_s: float = AGAIN_S,
        apart_s: float = APART_S,
    ) -> None:
        self._authority, self._keyring = authority, keyring
        self._prove, self._own = prove, own
        self._takes_former = takes_former
        self._former: set[str] = set()
        self._again_s, self._apart_s = again_s, apart_s
        self._asked_at: dict[str, float] = {}
        self._turns = asyncio.Semaphore(most_at_once)
        self._tasks = TaskOwner()
        self._places: dict[str, _Place] = {}
        self.relink: Callable[[str], None] = lambda _: None

    def link_of(self, beat: Beat, sender: Sender) -> NodeLink:
        """Return how a node is reached, and begin to find out if it is not known."""
        if not sender.has_key:
            self._leave(beat.node_id)
            return self._former_link(beat, sender)
        key = self._keyring.of_node(beat.node_id)
        if key is None:
            self._leave(beat.node_id)
            return _LEFT
        return self._called_link(beat, sender, key)

    def forget(self, node_id: str) -> None:
        """Forget a node, and ask it nothing more."""
        self._asked_at.pop(node_id, None)
        self._leave(node_id)

    def _leave(self, node_id: str) -> None:
        """Forget how a node is reached, and ask it nothing more."""
        self._former.discard(node_id)
        place = self._places.pop(node_id, None)
        if place is not None and place.asking is not None:
            place.asking.cancel()

    def token_of(self, node_id: str) -> str | None:
        """Return the token by which a node knows the hub; None if it has no key."""
        key = self._keyring.of_node(node_id)
        return None if key is None else self._authority.hub_token(key.id)

    def end_former(self) -> None:
        """Look again at nodes without a key: whether any is used may have changed."""
        for node_id in list(self._former):
            self.relink(node_id)

    async def aclose(self) -> None:
        """End what is being asked."""
        await self._tasks.aclose()

    def _former_link(self, beat: Beat, sender: Sender) -> NodeLink:
        if not self._takes_former():  # it was remembered from before the first key
            return _UNTAKEN
        claim = Claim(sender.peer, beat.port, is_former=True)
        allowed = allowed_addresses(claim, self._own())
        if not allowed.addresses:
            return NodeLink(fault=allowed.faults[0])
        self._former.add(beat.node_id)
        url = url_of(allowed.addresses[0], beat.port, is_tls=False)
        return NodeLink(Upstream(url, is_gateway=True))

    def _called_link(self, beat: Beat, sender: Sender, key: NodeKey) -> NodeLink:
        named = tuple(text for text in (beat.ipv4, beat.ipv6) if text)
        claim = Claim(sender.peer, beat.port, named)
        allowed = allowed_addresses(claim, self._own())
        if not allowed.addresses:
            self._leave(beat.node_id)
            return NodeLink(fault=" ".join(allowed.faults))
        is_tls = beat.agent is not None and beat.agent.scheme == "https"
        question = _Question(
            replace(key, is_used=True),  # the same key before and after its first use
            beat.agent.boot_id if beat.agent is not None else "",
            tuple(url_of(one, beat.port, is_tls=is_tls) for one in allowed.addresses),
        )
        place = self._places.get(beat.node_id)
        if place is not None and place.has_proved(question):
            return place.link
        if place is None or not place.question.asks_same(question):
            self._leave(beat.node_id)
            place = self._places[beat.node_id] = _Place(question)
            self._ask(beat.node_id, place, is_tls=is_tls)
        elif place.link.upstream is None and self._may_ask_again(place):
            self._ask(beat.node_id, place, is_tls=is_tls)
        return place.link

    def _may_ask_again(self, place: _Place) -> bool:
        now = asyncio.get_running_loop().time()
        return place.asking is None and now - place.asked_at >= self._again_s

    def _ask(self, node_id: str, place: _Place, *, is_tls: bool) -> None:
        link = self._authority.link(place.question.key.id, is_tls=is_tls)
        coro = self._find(node_id, place, link)
        place.asking = self._tasks.spawn(coro, name="reach")

    async def _find(self, node_id: str, place: _Place, link: Link) -> None:
        """Ask a node's addresses for its proof, when it is its turn."""
        question, now = place.question, asyncio.get_running_loop().time
        last = self._asked_at.get(node_id)
        if last is not None:
            await asyncio.sleep(last + self._apart_s - now())
        async with self._turns:
            self._asked_at[node_id] = now()
            without_token = replace(link, token="")
            url = await self._prove(question.urls, question.key, without_token)
        place.asking = None
        place.asked_at = now()
        if url:
            place.link = NodeLink(Upstream(url, link), serves_all=True)
        else:
            place.link = NodeLink(fault=_unproven(question.urls))
        if self._places.get(node_id) is place:
            self.relink(node_id)


def _unproven(urls: Sequence[str]) -> str:
    return (
        f"the hub found no proof of this node at {', '.join(urls)}; let it in through"
        " the firewall, start the agent with --tunnel, or have it join again if the hub"
        " lost its state folder"
    )
