"""Read what a machine sends to join, and what it gets: the shapes of both. Pure."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ollama_proxy.core.nodes.node_id import check_node_id
from ollama_proxy.core.nodes.node_keys import NodeKeyId

LONGEST_BODY: Final = 32 * 1024
"""Bytes of a request to join; one of ours has some 800."""

_KEY_ID = re.compile(r"[0-9a-f]{16}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class JoinBodyError(ValueError):
    """Reports a body that is no request to join, in a sentence."""


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Holds what a machine sends to join.

    ``key_id``, ``key_digest``: of the key that it drew. ``certificate_request``: PEM,
    "" to join without TLS.
    """

    token: str = field(repr=False)
    node_id: str
    key_id: NodeKeyId
    key_digest: bytes = field(repr=False)
    certificate_request: str = ""

    @property
    def digest(self) -> bytes:
        """Return by what the same request is known again, apart from its token."""
        parts = (self.node_id, self.key_id, self.key_digest, self.certificate_request)
        return hashlib.sha256(msgspec.json.encode(parts)).digest()


class _Body(msgspec.Struct):
    token: str
    node_id: str
    key_id: str
    key_digest: str
    certificate_request: str = ""


class JoinAnswer(msgspec.Struct, frozen=True):
    """Holds what a machine that joined gets: nothing of it is secret.

    ``certificate``, ``authority``: PEM, "" without TLS. ``hub_token_digest``: SHA-256,
    hexadecimal, of the token that the hub sends with every request.
    """

    node_id: str
    certificate: str
    authority: str
    hub_token_digest: str


class RenewRequest(msgspec.Struct):
    """Holds what a node sends for a new certificate; its key names the node."""

    certificate_request: str


class RenewAnswer(msgspec.Struct, frozen=True):
    """Holds what it gets: a certificate, PEM."""

    certificate: str


class Authority(msgspec.Struct, frozen=True):
    """Holds the certificate of the hub's authority, PEM; each may read it."""

    authority: str


def read_join_request(body: bytes) -> JoinRequest:
    """Return the request to join in a body. Raises `JoinBodyError`."""
    try:
        read = msgspec.json.decode(body, type=_Body)
        node_id = check_node_id(read.node_id)
    except (ValueError, RecursionError) as error:
        raise JoinBodyError(f"this is no request to join: {error}") from None
    if not _KEY_ID.fullmatch(read.key_id):
        raise JoinBodyError("this is no request to join: key_id has 16 hex letters")
    if not _DIGEST.fullmatch(read.key_digest):
        message = "this is no request to join: key_digest has 64 hex letters"
        raise JoinBodyError(message)
    return JoinRequest(
        read.token,
        node_id,
        NodeKeyId(read.key_id),
        bytes.fromhex(read.key_digest),
        read.certificate_request,
    )


def join_body(request: JoinRequest) -> bytes:
    """Return the body of a request to join."""
    return msgspec.json.encode(
        _Body(
            request.token,
            request.node_id,
            request.key_id,
            request.key_digest.hex(),
            request.certificate_request,
        )
    )


def read_renew_request(body: bytes) -> RenewRequest:
    """Return the request for a new certificate in a body. Raises `JoinBodyError`."""
    try:
        return msgspec.json.decode(body, type=RenewRequest)
    except (ValueError, RecursionError) as error:
        raise JoinBodyError(f"this is no request for a certificate: {error}") from None
