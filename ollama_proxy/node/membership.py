"""Keep what a joining brings: the node's key, its certificate, how it knows the hub."""

import contextlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
import msgspec

from ollama_proxy.base.private_file import write_private
from ollama_proxy.core.nodes.node_keys import NodeKeyId, digest_of, nonce_secret
from ollama_proxy.core.nodes.tls_names import HUB_NAME
from ollama_proxy.node.hub_access import HubAccess
from ollama_proxy.upstream.hub_trust import trusting

MEMBERSHIP_FILE: Final = "node-membership.json"
DRAFT_FILE: Final = "node-joining.json"
KEPT_S: Final = 120.0
"""How long an idle connection to the hub is kept: for some beats. A new one for each
takes a hub twice the time, and with TLS much more."""

_CERTIFICATE_FILE = "node-certificate.pem"
_LONGEST_FILE = 64 * 1024

Kept = TypeVar("Kept", "Membership", "Draft")


@dataclass(frozen=True, slots=True)
class Draft:
    """Holds what a node draws before it asks to join; the request is made of it.

    It is on disk before the hub gets any of it, so that a node that is killed asks once
    more for the same. ``token_digest``: of the token that it is for, hexadecimal.
    ``private_key`` and ``certificate_request``: PEM, "" without TLS.
    """

    token_digest: str
    node_id: str
    key_id: NodeKeyId
    key: str = field(repr=False)
    private_key: str = field(default="", repr=False)
    certificate_request: str = ""


@dataclass(frozen=True, slots=True)
class Membership:
    """Holds what a node that has joined has.

    ``key``: by which the hub knows it. ``certificate``, ``private_key``: PEM, of its
    server, "" without TLS. ``authority``: PEM, of the hub; ``is_pinned``: the hub's own
    server is trusted by it, else by the system's authorities. ``hub_token_digest``: by
    which it knows the hub. ``token_digest``: of the token that it joined with.
    """

    node_id: str
    key: str = field(repr=False)
    hub_token_digest: str = field(repr=False)
    token_digest: str = field(repr=False)
    authority: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    certificate_request: str = field(default="", repr=False)
    is_pinned: bool = False

    @property
    def has_tls(self) -> bool:
        """Tell whether its server speaks TLS."""
        return bool(self.certificate)

    @property
    def access(self) -> HubAccess:
        """Return how it knows the hub, and proves which node it is."""
        return HubAccess(
            bytes.fromhex(self.hub_token_digest), nonce_secret(digest_of(self.key))
        )

    def open_session(self) -> aiohttp.ClientSession:
        """Return what asks the hub with the node's key, and trusts no other server."""
        authority = self.authority if self.is_pinned else ""
        return _session(authority, {"Authorization": f"Bearer {self.key}"})

    def show_certificate(self, folder: Path, context: ssl.SSLContext) -> None:
        """Have a context show the certificate; OpenSSL reads it from a file alone.

        Raises `OSError`; `ssl.SSLError` if the certificate is damaged.
        """
        path = folder / _CERTIFICATE_FILE
        write_private(path, f"{self.certificate}{self.private_key}".encode())
        context.load_cert_chain(path)


def hub_connector(authority: str) -> aiohttp.TCPConnector:
    """Return what connects to the hub alone.

    ``authority``: PEM, of the hub; "": one of the system's vouches for it.
    """
    trusted = trusting(authority, HUB_NAME) if authority else True
    return aiohttp.TCPConnector(ssl=trusted, keepalive_timeout=KEPT_S)


def keyless_session() -> aiohttp.ClientSession:
    """Return what asks a hub that this node has not joined."""
    return _session("", {})


def _session(authority: str, fields: dict[str, str]) -> aiohttp.ClientSession:
    """Return what asks one server, whatever that says: no other one, nor for cookies.

    A hub could fill the memory with cookies, and have this machine ask any address.
    """
    traced = aiohttp.TraceConfig()
    traced.on_request_redirect.append(_refuse_redirect)
    return aiohttp.ClientSession(
        connector=hub_connector(authority),
        headers=fields,
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[traced],
    )


async def _refuse_redirect(
    _session: aiohttp.ClientSession,
    _context: object,
    redirect: aiohttp.TraceRequestRedirectParams,
) -> None:
    """End a request that is sent on; a WebSocket has no other way to say so."""
    redirect.response.close()
    raise aiohttp.ClientError("the hub sends this node to another server")


def read_membership(folder: Path) -> Membership | None:
    """Return what the folder has of a joining; None if nothing, or it is damaged."""
    return _read(folder / MEMBERSHIP_FILE, Membership)


def write_membership(folder: Path, membership: Membership) -> None:
    """Keep what a joining has brought, and forget what it was made of.

    Raises `OSError`.
    """
    _write(folder / MEMBERSHIP_FILE, membership)
    with contextlib.suppress(OSError):
        (folder / DRAFT_FILE).unlink(missing_ok=True)


def read_draft(folder: Path) -> Draft | None:
    """Return what was drawn for a joining that has not ended."""
    return _read(folder / DRAFT_FILE, Draft)


def write_draft(folder: Path, draft: Draft) -> None:
    """Keep what was drawn for a joining. Raises `OSError`."""
    _write(folder / DRAFT_FILE, draft)


def _read(path: Path, kind: type[Kept]) -> Kept | None:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_LONGEST_FILE), type=kind)
    except (OSError, ValueError):
        return None


def _write(path: Path, value: Membership | Draft) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, msgspec.json.encode(value), is_lasting=True)
