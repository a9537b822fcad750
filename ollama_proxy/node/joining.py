"""Join a hub with the token that its owner gave: once, however often it is killed."""

import asyncio
import secrets
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import StartupError
from ollama_proxy.base.retry import GrowingPause
from ollama_proxy.core.nodes.hub_routes import AUTHORITY, JOIN
from ollama_proxy.core.nodes.join_request import (
    Authority,
    JoinAnswer,
    JoinRequest,
    join_body,
)
from ollama_proxy.core.nodes.node_keys import (
    NODE_KEY_ID_LETTERS,
    SECRET_BYTES,
    GivenToken,
    NodeKeyId,
    digest_of,
    node_key_text,
    read_join_token,
)
from ollama_proxy.node.certificate_request import certificate_request, make_private_key
from ollama_proxy.node.hub_calls import ask_hub
from ollama_proxy.node.hub_client import HubAwayError, HubRefusedError
from ollama_proxy.node.membership import (
    Draft,
    Membership,
    hub_connector,
    read_draft,
    read_membership,
    write_draft,
    write_membership,
)
from ollama_proxy.upstream.hub_trust import fingerprint_of

T = TypeVar("T")

TOKEN_SETTING = "OLLAMA_PROXY_NODE_TOKEN"  # noqa: S105 - a setting's name
_NEW_LINE = "run `ollama-proxy node-token` on the hub, and paste its line here"


class Joiner:
    """Joins one hub.

    ``url``: of the hub. ``folder``: where what lasts is kept. ``is_tls``: the hub and
    this machine speak TLS with one another.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        node_id: str,
        *,
        is_tls: bool,
        pause: GrowingPause,
    ) -> None:
        self._url, self._folder, self._node_id = url, folder, node_id
        self._is_tls = is_tls
        self._pause = pause
        self._log = structlog.get_logger()

    async def membership(self, token: str | None) -> Membership | None:
        """Return what a joining has brought; join with a token that was not used here.

        None without a token, on a machine that never joined. It waits for a hub that is
        away. Raises `StartupError` if the hub refuses, or nothing can be kept.
        """
        kept = read_membership(self._folder)
        if not token:
            return self._checked(kept)
        given = self._given(token)
        if kept is not None and kept.token_digest == _digest(given):
            return self._checked(kept)
        try:
            joined = await self._join(given)
            write_membership(self._folder, joined)
        except HubRefusedError as error:
            message = f"the hub does not let this machine join ({error})"
            raise StartupError(message) from None
        except OSError as error:
            raise StartupError(
                f"what the hub gives can't be kept in {str(self._folder)!r}"
                f" ({error.strerror or error}); make room, or set"
                " OLLAMA_PROXY_STATE_DIR to a folder of this user"
            ) from error
        self._log.info(log.NODE_JOINED, node_id=joined.node_id, url=self._url)
        return joined

    def _checked(self, kept: Membership | None) -> Membership | None:
        if kept is not None and kept.node_id != self._node_id:
            raise StartupError(
                f"this machine joined the hub as {kept.node_id!r}, and NODE_ID is"
                f" {self._node_id!r}; set NODE_ID={kept.node_id}, or {_NEW_LINE}"
            )
        if kept is not None and kept.is_pinned:
            self._check_scheme()
        return kept

    def _given(self, token: str) -> GivenToken:
        """Return the parts of a token, if it suits the hub's URL."""
        given = read_join_token(token.strip())
        if given is None:
            raise StartupError(f"{TOKEN_SETTING} is no join token; {_NEW_LINE}")
        self._check_scheme()
        return given

    def _check_scheme(self) -> None:
        """Refuse to send a secret where everybody on the way may read it."""
        if self._is_tls and not self._url.startswith("https://"):
            raise StartupError(
                f"SERVER_URL is {self._url}, and a node that joins speaks TLS; write"
                " https://, or start the agent with --no-tls on a network where nobody"
                " else listens"
            )

    async def _join(self, given: GivenToken) -> Membership:
        """Ask until the hub answers."""
        draft = self._draft(given)
        tries, trouble = 0, ""
        while True:
            try:
                return await self._ask(given, draft)
            except HubAwayError as error:
                tries += 1
                if str(error) != trouble:
                    trouble = str(error)
                    self._log.warning(log.HUB_AWAY, reason=f"joining waits: {error}")
            await asyncio.sleep(self._pause.after(tries))

    def _draft(self, given: GivenToken) -> Draft:
        """Return what was drawn for this token; draw and keep it at first.

        Raises `OSError`.
        """
        kept = read_draft(self._folder)
        if (
            kept is not None
            and (kept.token_digest, kept.node_id) == (_digest(given), self._node_id)
            and bool(kept.private_key) is self._is_tls
        ):
            return kept
        key_id = NodeKeyId(secrets.token_hex(NODE_KEY_ID_LETTERS // 2))
        private_key = make_private_key() if self._is_tls else ""
        draft = Draft(
            _digest(given),
            self._node_id,
            key_id,
            node_key_text(key_id, secrets.token_bytes(SECRET_BYTES)),
            private_key,
            certificate_request(private_key) if private_key else "",
        )
        write_draft(self._folder, draft)
        return draft

    async def _ask(self, given: GivenToken, draft: Draft) -> Membership:
        """Ask once. The token is sent to no server but the one that it names."""
        is_pinned = self._is_tls and bool(given.fingerprint)
        authority = await self._pinned_authority(given) if is_pinned else ""
        request = JoinRequest(
            given.sent,
            draft.node_id,
            draft.key_id,
            digest_of(draft.key),
            draft.certificate_request,
        )
        async with aiohttp.ClientSession(connector=hub_connector(authority)) as session:
            told = await ask_hub(session, f"{self._url}{JOIN}", join_body(request))
        answer = _decoded(told, JoinAnswer)
        return Membership(
            draft.node_id,
            draft.key,
            answer.hub_token_digest,
            draft.token_digest,
            authority or answer.authority,
            answer.certificate,
            draft.private_key,
            draft.certificate_request,
            is_pinned,
        )

    async def _pinned_authority(self, given: GivenToken) -> str:
        """Return the hub's authority, if it is the one that the token names.

        Nothing secret goes over this connection; its answer is believed for the
        fingerprint alone.
        """
        connector = aiohttp.TCPConnector(ssl=False)
        async with aiohttp.ClientSession(connector=connector) as session:
            told = await ask_hub(session, f"{self._url}{AUTHORITY}")
        found = _decoded(told, Authority).authority
        if fingerprint_of(found) != given.fingerprint:
            raise HubRefusedError(
                f"the server at {self._url} is not the hub that made the token, or"
                " another one answers in between; nothing was sent to it"
            )
        return found


def _decoded(told: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(told, type=kind)
    except (ValueError, RecursionError) as error:
        raise HubRefusedError(
            f"it does not answer as a hub of ollama-proxy does: {error}"
        ) from None


def _digest(given: GivenToken) -> str:
    return digest_of(given.sent).hex()
