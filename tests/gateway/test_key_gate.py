"""What the head of a request decides: its caller, or its refusal."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from ollama_proxy.core.access.facts import AccessFacts
from ollama_proxy.core.access.keys import Caller
from ollama_proxy.core.http.reply import Reply
from ollama_proxy.core.nodes.node_keys import (
    NodeKeyId,
    join_token_text,
    node_key_text,
)
from ollama_proxy.core.ollama.routes import classify
from ollama_proxy.gateway.credentials import SENT_IN
from ollama_proxy.gateway.key_gate import KeyGate
from ollama_proxy.gateway.keyring import Keyring
from ollama_proxy.gateway.order_token import OrderToken
from ollama_proxy.store.memory import MemoryStore
from tests.fakes.keys import (
    ADMIN_ALONE,
    DISABLED,
    EXPIRED,
    GOOD,
    READER,
    UNKNOWN,
    WRITER,
    MadeKey,
    put_keys,
)
from tests.test_key_matrix import ROUTES
from tests.virtual_time import SetClock

NODE_KEY = node_key_text(NodeKeyId("0123456789abcdef"), bytes(range(32)))
JOIN_TOKEN = join_token_text("0123abcd", bytes(32), "")
TOKEN = f"opt_{'t' * 43}"
ORDER = {"Authorization": f"Bearer {TOKEN}"}
CHAT, STATUS, JOURNAL = "POST /api/chat", "GET /status", "GET /-/journal"
WAKE, STOP, SWEEP = "POST /-/wake", "POST /-/stop", "POST /-/sweep"


@dataclass
class Asker:
    """Asks one gate about requests."""

    gate: KeyGate
    store: MemoryStore = field(default_factory=MemoryStore)

    def ask(self, asked: str, **headers: str) -> Caller | Reply:
        method, path = asked.split(" ")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        lowered = {name.lower(): value for name, value in named.items()}
        sent = [(name, lowered[name]) for name in SENT_IN if name in lowered]
        return self.gate.identify(
            AccessFacts(
                "10.0.0.9", method, path, classify(method, path), "h", "", named, sent
            )
        )

    def status(self, asked: str, **headers: str) -> int:
        told = self.ask(asked, **headers)
        return told.status if isinstance(told, Reply) else 200

    def words(self, asked: str, **headers: str) -> str:
        told = self.ask(asked, **headers)
        assert isinstance(told, Reply)
        words: str = json.loads(told.body)["error"]
        return words


def asker_with(*keys: MadeKey, **how: Any) -> Asker:
    store, clock = MemoryStore(), SetClock()
    clock.moment = 1_800_000_000.0
    put_keys(store, *keys)
    how = {"order_token": OrderToken(TOKEN)} | how
    return Asker(KeyGate(Keyring(store, clock), clock, **how), store)


def test_without_keys_everything_but_orders_is_open() -> None:
    without = asker_with()
    for asked in (CHAT, STATUS, "GET /metrics", "GET /-/wait", "GET /-/usage"):
        assert without.status(asked) == 200
        assert without.status(asked, **UNKNOWN.bearer) == 200
        assert without.status(asked, Authorization="Bearer ollama") == 200
    for asked in (JOURNAL, WAKE, STOP, SWEEP, "DELETE /-/pulls/x", "GET /-/plan"):
        assert without.status(asked) == 401
        assert without.status(asked, **ORDER) == 200


def test_a_local_bind_without_keys_leaves_two_orders_open() -> None:
    local = asker_with(is_local=True)
    assert local.status(WAKE) == local.status(STOP) == 200
    assert local.status(WAKE, **UNKNOWN.bearer) == 200
    for asked in (JOURNAL, SWEEP, "GET /-/wake", "POST /-/wake/", "POST /-/keys"):
        assert local.status(asked) == 401
    assert asker_with().status(WAKE) == 401
    assert asker_with(GOOD, is_local=True).status(WAKE) == 401
    assert asker_with(is_local=True, is_needed=True).status(WAKE) == 401


@pytest.mark.parametrize(
    "header",
    [
        "Forwarded",
        "VIA",
        "X-Real-Ip",
        "X-Forwarded-For",
        "x-forwarded-proto",
        "X-Forwarded-Anything",
    ],
)
def test_a_relayed_order_is_a_strangers(header: str) -> None:
    local = asker_with(is_local=True)
    assert local.status(WAKE, **{header: ""}) == 401
    assert local.status(WAKE, **{header: "1.2.3.4"}) == 401
    assert local.status(WAKE, **{header: "1.2.3.4"}, **ORDER) == 200
    assert local.status(CHAT, **{header: "1.2.3.4"}) == 200


def test_a_key_for_clients_means_that_requests_need_one() -> None:
    needed = asker_with(GOOD)
    assert needed.gate.is_on
    for asked in (CHAT, STATUS, JOURNAL, "GET /api/tags", "GET /nowhere"):
        assert needed.status(asked) == 401
        assert needed.status(asked, **GOOD.bearer) == 200


@pytest.mark.parametrize("asked", ["GET /", "HEAD /", "GET /healthz"])
def test_what_is_open_stays_open(asked: str) -> None:
    for headers in ({}, UNKNOWN.bearer, GOOD.bearer):
        assert asker_with(GOOD).status(asked, **headers) == 200


def test_a_key_for_orders_alone_switches_nothing_on() -> None:
    gate = asker_with(ADMIN_ALONE)
    assert not gate.gate.is_on
    assert gate.status(CHAT) == 200
    assert gate.status(JOURNAL) == 401
    assert gate.status(JOURNAL, **ADMIN_ALONE.bearer) == 200


def test_the_setting_wins_over_what_keys_there_are() -> None:
    assert asker_with(is_needed=True).status(CHAT) == 401
    off = asker_with(GOOD, is_needed=False)
    assert off.status(CHAT) == 200
    assert off.status(JOURNAL) == 401
    assert off.status(JOURNAL, **GOOD.bearer) == 200


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "this proxy needs a key, sent as `Authorization: Bearer KEY`"),
        (UNKNOWN.bearer, "this proxy has no such key"),
        ({"Authorization": "Bearer ollama"}, "what was sent is no key of this proxy"),
        ({"Authorization": "Bearer opt_x"}, "that order token is not this proxy's"),
        (DISABLED.bearer, "the key 'disabled' is disabled"),
        (EXPIRED.bearer, "the key 'expired' expired"),
        ({"x_api_key": GOOD.text, **WRITER.bearer}, "carries several keys"),
    ],
)
def test_a_request_without_a_valid_key_is_told_why(
    headers: dict[str, str], words: str
) -> None:
    gate = asker_with(GOOD, DISABLED, EXPIRED, WRITER)
    assert gate.status(CHAT, **headers) == 401
    assert words in gate.words(CHAT, **headers)


def test_a_missing_right_is_named() -> None:
    gate = asker_with(READER)
    assert gate.status(CHAT, **READER.bearer) == 403
    assert "'reader' lacks the right 'chat'" in gate.words(CHAT, **READER.bearer)
    assert gate.status(JOURNAL, **READER.bearer) == 403
    assert gate.status(STATUS, **READER.bearer) == 200


def test_a_key_for_orders_may_read_what_the_proxy_does_and_nothing_of_ollamas() -> None:
    gate = asker_with(GOOD, ADMIN_ALONE)
    for asked in (STATUS, "GET /metrics", "GET /-/wait", JOURNAL, WAKE):
        assert gate.status(asked, **ADMIN_ALONE.bearer) == 200
    for asked in (CHAT, "GET /api/tags"):
        assert gate.status(asked, **ADMIN_ALONE.bearer) == 403


def test_the_order_token_gives_orders_and_reads_but_spends_nothing_itself() -> None:
    gate = asker_with(GOOD)
    for asked in (STATUS, JOURNAL, SWEEP, "GET /api/tags", "POST /api/show"):
        assert gate.status(asked, **ORDER) == 200
    for asked in (CHAT, "POST /api/pull", "POST /api/embed"):
        assert gate.status(asked, **ORDER) == 403
    assert "`ollama-proxy key add NAME`" in gate.words(CHAT, **ORDER)


def test_without_an_order_token_only_keys_give_orders() -> None:
    gate = asker_with(ADMIN_ALONE, order_token=None)
    assert gate.status(JOURNAL, **ORDER) == 401
    assert gate.status(JOURNAL, **ADMIN_ALONE.bearer) == 200


def test_the_caller_is_known_by_key_and_address() -> None:
    caller = asker_with(GOOD).ask(CHAT, **GOOD.bearer)
    assert isinstance(caller, Caller)
    assert (caller.address, caller.name, caller.is_admin) == ("10.0.0.9", "good", True)
    reader = asker_with(READER).ask(STATUS, **READER.bearer)
    assert isinstance(reader, Caller)
    assert not reader.is_admin


@pytest.mark.parametrize(
    ("headers", "is_admin"),
    [
        ({}, False),
        (ORDER, True),
        (ADMIN_ALONE.bearer, True),
        (READER.bearer, False),
        (DISABLED.bearer, False),
        ({"Authorization": "Bearer x"}, False),
    ],
)
def test_without_keys_a_caller_is_an_admin_by_what_it_proves(
    headers: dict[str, str], is_admin: bool
) -> None:
    gate = asker_with(ADMIN_ALONE, READER, DISABLED, is_needed=False)
    caller = gate.ask(STATUS, **headers)
    assert isinstance(caller, Caller)
    assert (caller.is_admin, caller.key) == (is_admin, None)


def test_requests_that_a_first_key_would_refuse_are_noted() -> None:
    noted: list[tuple[str, str]] = []
    without = asker_with(ADMIN_ALONE, note_keyless=lambda *who: noted.append(who))
    without.ask(CHAT, User_Agent="curl/8.5")
    without.ask(STATUS)
    for asked in ("GET /", "GET /healthz", JOURNAL):
        without.ask(asked, User_Agent="open, or an order")
    without.ask(STATUS, User_Agent="the command", **ORDER)
    without.ask(STATUS, User_Agent="an admin", **ADMIN_ALONE.bearer)

    assert noted == [("10.0.0.9", "curl/8.5"), ("10.0.0.9", "")]


def test_no_request_is_noted_once_keys_are_needed() -> None:
    noted: list[tuple[str, str]] = []
    needed = asker_with(GOOD, note_keyless=lambda *who: noted.append(who))
    needed.ask(CHAT)
    needed.ask(CHAT, **GOOD.bearer)

    assert noted == []


def test_an_order_that_needs_no_key_is_that_of_its_key_if_it_has_one() -> None:
    local = asker_with(ADMIN_ALONE, is_local=True)
    by_key = local.ask(WAKE, **ADMIN_ALONE.bearer)
    by_token = local.ask(WAKE, **ORDER)
    by_nobody = local.ask(WAKE, Authorization="Bearer ollama")

    assert isinstance(by_key, Caller)
    assert isinstance(by_token, Caller)
    assert isinstance(by_nobody, Caller)
    assert (by_key.name, by_key.is_admin) == (ADMIN_ALONE.key.name, True)
    assert (by_token.name, by_token.is_admin) == ("", True)
    assert (by_nobody.name, by_nobody.is_admin) == ("", False)


BASIC = base64.b64encode(f"box:{NODE_KEY}".encode()).decode()


@pytest.mark.parametrize("keys", [(), (GOOD,)], ids=["keyless", "keys needed"])
@pytest.mark.parametrize(
    "sent",
    [
        {"Authorization": f"Bearer {NODE_KEY}"},
        {"Authorization": f"bearer  {NODE_KEY}"},
        {"Authorization": f"Basic {BASIC}"},
        {"x-api-key": NODE_KEY},
        {"Authorization": f"Bearer {JOIN_TOKEN}"},
        {"x-api-key": JOIN_TOKEN, "Cookie": "a=b"},
    ],
    ids=lambda sent: " ".join(sent)[:24],
)
def test_a_nodes_key_and_a_join_token_open_no_route_that_needs_anything(
    keys: tuple[MadeKey, ...], sent: dict[str, str]
) -> None:
    asker = asker_with(*keys, is_local=True)
    for method, path, needed in ROUTES:
        if needed is not None:
            assert asker.status(f"{method} {path}", **sent) == 403, path
    assert "for its beats" in asker.words(CHAT, **sent)
    assert NODE_KEY[21:] not in asker.words(CHAT, **sent)


def test_a_token_for_another_server_is_no_nodes_key() -> None:
    for text in ("ollama", "opn", "sk-opn_abc", "Bearer opn_"):
        assert asker_with().status(CHAT, Authorization=f"Bearer {text}") == 200
