"""Decide by its key which requests may pass: the first of two looks at a key.

It is taken at the head of each request, before anything is served, woken or counted as
use. What can only be judged by the body is judged later, for callers with a key.
"""

from collections.abc import Callable
from typing import Final, Protocol

from ollama_proxy.base.clock import Clock
from ollama_proxy.core.access.decision import (
    KeyRefusal,
    decide_route,
    forbidden,
    no_key,
)
from ollama_proxy.core.access.facts import AccessFacts
from ollama_proxy.core.access.forwarding import are_forwarded
from ollama_proxy.core.access.keys import Caller, Key, KeyId
from ollama_proxy.core.access.own_page import is_of_own_page
from ollama_proxy.core.access.refusal_replies import refusal_reply
from ollama_proxy.core.access.route_classes import RouteClass, route_class
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.nodes.hub_routes import has_old_shape
from ollama_proxy.core.nodes.job_errors import in_old_shape
from ollama_proxy.core.nodes.node_keys import is_of_nodes
from ollama_proxy.core.ollama.routes import Kind
from ollama_proxy.gateway.credentials import (
    credential_of,
    is_of_a_node,
    lone_key,
)
from ollama_proxy.gateway.key_text import KEY_PREFIX, ORDER_PREFIX
from ollama_proxy.gateway.order_token import OrderToken
from ollama_proxy.gateway.sessions import Sessions

_OPEN_ORDERS = frozenset({"/-/wake", "/-/stop"})
_HOW_TO_ORDER: Final = (
    "orders to the proxy need a key with the right 'admin', or its order token, which"
    " `ollama-proxy …` sends by itself where it can read the proxy's state folder"
)
_HOW_TO_ASK: Final = (
    "this proxy needs a key, sent as `Authorization: Bearer KEY`, `x-api-key` or the"
    " password of a login; its owner makes one with `ollama-proxy key add NAME`"
)
_NO_SESSION: Final = "this session is over; log in again"
_OTHER_PAGE: Final = "a session is for the proxy's own page, and another page asks"
_SEVERAL: Final = "the request carries several keys; send one"
_NODES_ALONE: Final = (
    "a key of a node is for its beats, its certificate and its tunnels, and a join"
    " token for joining; make a key with `ollama-proxy key add NAME`"
)
_ORDERS_ALONE: Final = (
    "the order token is for orders and for reading; make a key with `ollama-proxy key"
    " add NAME`"
)
Refused = Callable[[AccessFacts, KeyRefusal], Reply]
"""Returns the response to a request that its key refuses."""

_TOKEN_MAY = frozenset({RouteClass.ADMIN, RouteClass.READ})


def plainly_refused(facts: AccessFacts, refusal: KeyRefusal) -> Reply:
    """Return a refusal in the format of the request's protocol."""
    reply = refusal_reply(facts.route.family, refusal)
    return in_old_shape(reply) if has_old_shape(facts.route) else reply


class Keys(Protocol):
    """Knows the keys: see `ollama_proxy.gateway.keyring.Keyring`."""

    @property
    def are_keys_needed(self) -> bool:
        """Tell whether there ever was a key for clients."""

    def find(self, text: str) -> Key | None:
        """Return the key that has this text; None if none has."""

    def by_id(self, key_id: KeyId) -> Key | None:
        """Return the key with this id, as it is now; None if it is gone."""


class KeyGate:
    """Returns the caller of each request, or its refusal.

    ``is_needed``: whether requests need a key; None: from the first key for clients on.
    ``note_keyless`` is called with the address and user agent of each request that a
    first key would have refused; ``note_refused`` with the key of each request that
    lacks a right. ``order_token``: None: only keys give orders.
    ``sessions``: of the page. ``is_local``: only this machine can connect; without
    keys, its programs may then wake and stop instances. ``refused``: makes the response
    to a request that may not pass.
    """

    def __init__(
        self,
        keys: Keys,
        clock: Clock,
        *,
        is_needed: bool | None = None,
        order_token: OrderToken | None = None,
        is_local: bool = False,
        sessions: Sessions | None = None,
        note_keyless: Callable[[str, str], None] | None = None,
        note_refused: Callable[[Key], None] | None = None,
        refused: Refused = plainly_refused,
    ) -> None:
        self._refused = refused
        self._sessions = sessions
        self._note_keyless = note_keyless
        self._note_refused = note_refused
        self._keys = keys
        self._clock = clock
        self._is_needed = is_needed
        self._order_token = order_token
        self._is_local = is_local

    @property
    def is_on(self) -> bool:
        """Tell whether requests need a key."""
        return (
            self._keys.are_keys_needed if self._is_needed is None else self._is_needed
        )

    def identify(self, facts: AccessFacts) -> Reply | Caller:
        """Return the caller of a request, or its refusal in the caller's format."""
        if facts.route.kind is Kind.INFERENCE and not self.is_on:
            # As `_judge` has it, in half the time.
            if facts.sent and is_of_a_node(facts.sent):
                return self._refused(facts, forbidden(_NODES_ALONE))
            return self._keyless(facts)
        needed = route_class(facts.method, facts.path, facts.route)
        told = self._judge(facts, needed)
        if isinstance(told, KeyRefusal):
            return self._refused(facts, told)
        return told

    def _judge(
        self, facts: AccessFacts, needed: RouteClass | None
    ) -> Caller | KeyRefusal:
        if needed is None:
            return Caller(facts.peer)
        is_order = needed is RouteClass.ADMIN
        if facts.sent and not self.is_on and is_of_a_node(facts.sent):
            return forbidden(_NODES_ALONE)
        if not is_order and not self.is_on:
            return self._keyless(facts)
        if is_order and self._is_open_order(facts):
            return self._giver_of_open_order(facts)
        return self._by_credential(facts, needed)

    def _by_credential(
        self, facts: AccessFacts, needed: RouteClass
    ) -> Caller | KeyRefusal:
        if lone := lone_key(facts.sent):  # nearly always, and each request pays for it
            key = self._keys.find(lone)
            if key is not None:
                return self._by_key(facts, key, needed, is_own_page=False)
        found = credential_of(facts.sent)
        if found.is_ambiguous:
            return no_key(_SEVERAL)
        if found.text:
            return self._by_text(facts, found.text, needed)
        if found.session:
            return self._by_session(facts, found.session, needed)
        is_order = needed is RouteClass.ADMIN
        return no_key(_HOW_TO_ORDER if is_order else _HOW_TO_ASK)

    def _by_text(
        self, facts: AccessFacts, text: str, needed: RouteClass
    ) -> Caller | KeyRefusal:
        """Judge a request by the key or order token that it carries."""
        if self._is_order_token(text):
            if needed in _TOKEN_MAY:
                return Caller(facts.peer, is_admin=True)
            return forbidden(_ORDERS_ALONE)
        key = self._keys.find(text)
        if key is None:
            is_no_clients = is_of_nodes(text)
            return forbidden(_NODES_ALONE) if is_no_clients else no_key(_unknown(text))
        return self._by_key(facts, key, needed, is_own_page=False)

    def _by_session(
        self, facts: AccessFacts, session: str, needed: RouteClass
    ) -> Caller | KeyRefusal:
        """Judge a request of a browser that has a session.

        Another page can have the browser send it, too.
        """
        if not _is_of_own_page(facts):
            return forbidden(_OTHER_PAGE)
        key = self._key_of_session(session)
        if key is None:
            return no_key(_NO_SESSION)
        return self._by_key(facts, key, needed, is_own_page=True)

    def _key_of_session(self, session: str) -> Key | None:
        key_id = self._sessions.key_of(session) if self._sessions is not None else None
        return None if key_id is None else self._keys.by_id(key_id)

    def _by_key(
        self, facts: AccessFacts, key: Key, needed: RouteClass, *, is_own_page: bool
    ) -> Caller | KeyRefusal:
        """Judge a request by its key, whatever it was sent as."""
        is_admin = key.rights.is_admin
        if is_admin and facts.route.kind is Kind.ADMIN:
            needed = RouteClass.ADMIN  # for a key with that right they include reads
        refusal = decide_route(key, needed, self._clock.now())
        if refusal is None:
            return Caller(facts.peer, key, is_admin=is_admin, is_own_page=is_own_page)
        if refusal.is_of_valid_key and self._note_refused is not None:
            self._note_refused(key)
        return refusal

    def _keyless(self, facts: AccessFacts) -> Caller:
        """Return the caller of a request that needs no key, and note its client."""
        caller = self._anyone(facts)
        if self._note_keyless is not None and not caller.is_admin:
            self._note_keyless(facts.peer, facts.headers.get("User-Agent", ""))
        return caller

    def _anyone(self, facts: AccessFacts) -> Caller:
        """Return the caller of a request that needs no key; one may be there."""
        if not facts.sent or facts.kind is not Kind.ADMIN:
            return Caller(facts.peer)
        found = credential_of(facts.sent)
        if found.text:
            return Caller(facts.peer, is_admin=self._may_order(found.text))
        key = self._key_of_session(found.session) if found.session else None
        if key is None or not _is_of_own_page(facts) or not self._may(key):
            return Caller(facts.peer)
        return Caller(facts.peer, is_admin=True, is_own_page=True)

    def _giver_of_open_order(self, facts: AccessFacts) -> Caller:
        """Return the caller of an order that needs no key, with the one it has."""
        text = credential_of(facts.sent).text if facts.sent else ""
        if not text or self._is_order_token(text) or not self._may_order(text):
            return self._anyone(facts)
        return Caller(facts.peer, self._keys.find(text), is_admin=True)

    def _may_order(self, text: str) -> bool:
        if self._is_order_token(text):
            return True
        key = self._keys.find(text)
        return key is not None and self._may(key)

    def _may(self, key: Key) -> bool:
        """Tell whether a key gives orders now."""
        return decide_route(key, RouteClass.ADMIN, self._clock.now()) is None

    def _is_order_token(self, text: str) -> bool:
        if self._order_token is None or not text.startswith(ORDER_PREFIX):
            return False
        return self._order_token.is_it(text)

    def _is_open_order(self, facts: AccessFacts) -> bool:
        """Tell whether an order is taken from whatever runs on this machine.

        A web server that relays strangers to it says so in a header, unless it is a
        plain ``proxy_pass``.
        """
        return (
            self._is_local
            and not self.is_on
            and facts.method == "POST"
            and facts.path in _OPEN_ORDERS
            and not are_forwarded(facts.headers)
        )


def _is_of_own_page(facts: AccessFacts) -> bool:
    return is_of_own_page(facts.method, facts.origin, facts.host, facts.headers)


def _unknown(text: str) -> str:
    if text.startswith(ORDER_PREFIX):
        return "that order token is not this proxy's, which has a new one at each start"
    if text.startswith(KEY_PREFIX):
        return "this proxy has no such key; `ollama-proxy key list` names those it has"
    return f"what was sent is no key of this proxy: {_HOW_TO_ASK}"
