"""Take orders about join tokens: ``/-/node-tokens``. A text is in one answer only."""

import socket
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from aiohttp import web

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StoreError
from ollama_proxy.base.listen_address import host_and_port
from ollama_proxy.core.nodes.node_keys import JoinToken
from ollama_proxy.hub.join_tokens import LIFE_S, JoinTokenError, JoinTokens
from ollama_proxy.server.admin.answers import json_answer, refuse_browsers
from ollama_proxy.server.admin.small_body import READ_S, read_small
from ollama_proxy.server.caller import caller_of

_ORDERS: Final = "/-/node-tokens"
_LONGEST_BODY = 4096


class _Wish(msgspec.Struct, forbid_unknown_fields=True):
    """Holds what a token is made like; ``ttl_s``: for how long it is taken."""

    ttl_s: float = LIFE_S
    tls: bool = True


class _WishError(Exception):
    """Reports a body that is no wish, in a sentence."""


class TokenOrders:
    """Makes, lists and revokes join tokens.

    ``fingerprint``: of the hub's authority. ``port``, ``tls_port``: where nodes reach
    the hub, without TLS and with it; None: nowhere. ``ends_with_joining`` returns the
    names of nodes without a key that the next joining ends.
    """

    def __init__(
        self,
        tokens: JoinTokens,
        fingerprint: str,
        clock: Clock,
        *,
        host: str = "",
        port: int | None,
        tls_port: int | None,
        ends_with_joining: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._ends_with_joining = ends_with_joining
        self._tokens, self._fingerprint, self._clock = tokens, fingerprint, clock
        self._host, self._ports = host, {False: port, True: tls_port}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of these orders, which need the right 'admin'."""
        return [
            web.get(_ORDERS, self.list_tokens),
            web.post(_ORDERS, self.make),
            web.delete(f"{_ORDERS}/{{token_id}}", self.revoke),
        ]

    async def list_tokens(self, request: web.Request) -> web.Response:
        """List the tokens that a machine can still join with."""
        refuse_browsers(request)
        return json_answer(
            {"tokens": list(map(self._shown, self._tokens.outstanding()))}
        )

    async def make(self, request: web.Request) -> web.Response:
        """Make a token; this one answer has its text, as ``token``."""
        refuse_browsers(request)
        try:
            wish = await _read_wish(request)
            url = self._url(is_tls=wish.tls)
            fingerprint = self._fingerprint if wish.tls else ""
            caller = caller_of(request)
            token_id, text = self._tokens.make(wish.ttl_s, fingerprint, caller)
        except (_WishError, JoinTokenError) as error:
            return _refusal(400, str(error))
        except StoreError as error:
            return _refusal(503, str(error))
        made = {
            "id": token_id,
            "token": text,
            "url": url,
            "expires_in_s": wish.ttl_s,
            "ends_with_joining": list(self._ends_with_joining()),
        }
        return json_answer(made, status=201)

    async def revoke(self, request: web.Request) -> web.Response:
        """Take a token no longer; a node that has joined with it stays."""
        refuse_browsers(request)
        token_id = request.match_info["token_id"]
        try:
            self._tokens.revoke(token_id, caller_of(request))
        except JoinTokenError as error:
            return _refusal(404, str(error))
        except StoreError as error:
            return _refusal(503, str(error))
        return json_answer({"revoked": token_id})

    def _shown(self, token: JoinToken) -> dict[str, object]:
        left_s = token.expires_at - self._clock.now()
        return {"id": token.id, "expires_in_s": max(0.0, round(left_s, 1))}

    def _url(self, *, is_tls: bool) -> str:
        """Return where a machine on this network reaches the hub, as far as we know."""
        port = self._ports[is_tls]
        if port is None:
            raise _WishError(
                "this hub listens nowhere with TLS; set OLLAMA_PROXY_HUB_LISTEN=:8000,"
                " or make a token with --no-tls"
                if is_tls
                else "this hub takes TLS alone, as OLLAMA_PROXY_TLS_CERT is set; make a"
                " token without --no-tls"
            )
        host = self._host or _own_address()
        return f"http{'s' if is_tls else ''}://{host_and_port(host, port)}"


async def _read_wish(request: web.Request) -> _Wish:
    try:
        body = await read_small(request, _LONGEST_BODY)
    except TimeoutError:
        message = f"the body did not arrive within {READ_S:g} s"
        raise _WishError(message) from None
    if body is None:
        raise _WishError(f"a body has up to {_LONGEST_BODY} bytes here")
    try:
        return msgspec.json.decode(body or b"{}", type=_Wish)
    except (ValueError, RecursionError) as error:
        raise _WishError(
            f"the body is no JSON object of ttl_s and tls: {error}"
        ) from None


def _own_address() -> str:
    """Return this machine's address on its network; its name if it has no network."""
    try:
        # A datagram socket that connects sends nothing: the system only chooses the
        # address that a packet would leave from. The other address is TEST-NET-1.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            asked.connect(("192.0.2.1", 9))
            return str(asked.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _refusal(status: int, message: str) -> web.Response:
    return json_answer({"error": message}, status=status)
