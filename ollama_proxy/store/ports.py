"""Define what a store does, one port per concern.

A module names the ports that it needs, and never a store's class:
`ollama_proxy.store.sqlite` is one store, `ollama_proxy.store.memory` another.
`tests/store/test_contract.py` checks both against these docstrings.
"""

from collections.abc import Collection
from typing import Final, Protocol

from ollama_proxy.base.clock import MarkStore
from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Key, KeyId
from ollama_proxy.core.access.usage import UsageField, UsageRow
from ollama_proxy.core.lifecycle.journal import Transition
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.nodes.node_keys import JoinToken, NodeKey, NodeKeyId
from ollama_proxy.core.nodes.remembered import RememberedNode
from ollama_proxy.core.ollama.catalog import Snapshot
from ollama_proxy.core.ollama.lessons import Lessons
from ollama_proxy.core.ports import (
    BackendNotes,
    LaunchHistory,
    LaunchRegister,
    ModelStore,
    RecordStore,
    StageHistory,
)
from ollama_proxy.store.claim import Claim

__all__ = [
    "AuditStore",
    "BackendNotes",
    "CatalogStore",
    "Claim",
    "CommitmentStore",
    "Health",
    "Journal",
    "KeyStore",
    "LaunchHistory",
    "LaunchRegister",
    "LessonStore",
    "MarkStore",
    "ModelStore",
    "NodeKeyStore",
    "NodeStore",
    "NoteStore",
    "Ownership",
    "Place",
    "Places",
    "RecordStore",
    "StageHistory",
    "Store",
    "UsageStore",
]

PLACES: Final = 16
"""How many places are remembered: those that were written last."""

REMEMBERED: Final = 20
"""How many launches of each offer are remembered."""

PERIODS: Final = 4
"""How many days, or months, of a key's commitments are kept: the last written."""

JOURNAL_LINES: Final = 1000
"""How many lines of the journal are kept: the newest."""

AUDIT_LINES: Final = 1000
"""How many lines of the audit are kept: the newest."""


class Journal(Protocol):
    """Keeps the changes of state, as lines for people to read."""

    def journal(self, limit: int = 50) -> list[Transition]:
        """Return the newest lines, newest first. Raises `StoreError`."""

    def add_line(self, line: Transition) -> None:
        """Write a line that changes no record. Raises `StoreError`."""


class AuditStore(Protocol):
    """Keeps a line for each use of an administrative right."""

    def audit(self, limit: int = 50) -> list[AuditLine]:
        """Return the newest lines, newest first. Raises `StoreError`."""

    def add_audit(self, line: AuditLine) -> None:
        """Write a line that changes no key. Raises `StoreError`."""


class KeyStore(Protocol):
    """Keeps the keys of clients, without their texts."""

    def all_keys(self) -> list[Key]:
        """Return every key, by name."""

    def put_key(self, key: Key, line: AuditLine) -> None:
        """Write a key and its line of the audit, both or neither. Raises `StoreError`.

        A key for clients makes `are_keys_needed` true in the same step.
        """

    def drop_key(self, key_id: KeyId, line: AuditLine) -> None:
        """Forget a key with its commitments and write its line, all or nothing.

        Raises `StoreError`.
        """

    def are_keys_needed(self) -> bool:
        """Tell whether there ever was a key for clients, here or in a file of keys."""

    def need_keys(self) -> None:
        """Make `are_keys_needed` true, for ever. Raises `StoreError`."""


class NodeKeyStore(Protocol):
    """Keeps the keys of nodes and the tokens to join with, without their texts."""

    def all_node_keys(self) -> list[NodeKey]:
        """Return every key of a node, by id."""

    def put_node_key(self, key: NodeKey) -> None:
        """Write a key in place of the one with its id. Raises `StoreError`."""

    def drop_node_key(self, key_id: NodeKeyId, line: AuditLine) -> None:
        """Forget a key and write the line, both or neither. Raises `StoreError`."""

    def join_tokens(self) -> list[JoinToken]:
        """Return every join token that is kept, by id."""

    def put_join_token(self, token: JoinToken, line: AuditLine) -> None:
        """Write a token and its line of the audit, both or neither.

        Raises `StoreError`.
        """

    def drop_join_tokens(
        self, token_ids: Collection[str], line: AuditLine | None = None
    ) -> None:
        """Forget tokens and write the line, if any, all or nothing.

        Raises `StoreError`.
        """

    def join_node(
        self,
        token: JoinToken,
        key: NodeKey,
        replaced: Collection[NodeKeyId],
        line: AuditLine,
    ) -> None:
        """Write a used token and its key, forget replaced ones, all or nothing.

        It makes `was_node_key_made` true in the same step. Raises `StoreError`.
        """

    def was_node_key_made(self) -> bool:
        """Tell whether there ever was a key of a node."""


class NodeStore(Protocol):
    """Keeps what lasts of the nodes of the hub."""

    def remembered_nodes(self) -> list[RememberedNode]:
        """Return every node, by name."""

    def put_nodes(
        self, nodes: Collection[RememberedNode], forgotten: Collection[str] = ()
    ) -> None:
        """Write nodes and forget others, all or nothing. Raises `StoreError`."""


class CatalogStore(Protocol):
    """Keeps the answers of the newest instance of a place about its models."""

    def contents(self) -> Snapshot | None:
        """Return the answers of the newest instance; None before the first."""

    def put_contents(self, contents: Snapshot) -> None:
        """Write the answers of the newest instance. Raises `StoreError`."""


class LessonStore(Protocol):
    """Keeps what the instances of a place taught besides."""

    def lessons(self) -> Lessons:
        """Return the lessons so far."""

    def put_lessons(self, lessons: Lessons) -> None:
        """Write the lessons. Raises `StoreError`."""


class Place(CatalogStore, LessonStore, Protocol):
    """Keeps what is known about the models of one place.

    A place is where models outlive an instance: a disk, a volume, a bucket, or the
    image that every instance begins with. Answers of instances in one place are not
    valid for another. After a change of ``name`` the object stands for the new place.
    """

    name: str


class Places(Protocol):
    """Has a `Place` for each name."""

    def place(self, name: str) -> Place:
        """Return what is known of the models of one place."""


class NoteStore(Protocol):
    """Has `BackendNotes` for each backend."""

    def notes_of(self, backend: str) -> BackendNotes:
        """Return the notes of one backend; no other sees them."""


class Ownership(Protocol):
    """Knows whose instances these are."""

    @property
    def owner_id(self) -> str:
        """Return the id of this deployment, drawn when the store was new."""

    def take_over(self, owner_id: str) -> None:
        """Continue as another deployment; this one must have nothing left in the cloud.

        Raises `StoreError`.
        """

    def claims(self) -> dict[str, Claim]:
        """Return what is noted of the offers that instances are on record for."""

    def launches(self) -> dict[str, LaunchId]:
        """Return the launches on record, by their slots. Raises `StoreError`."""

    def claim(self, claims: Collection[Claim], slots: Collection[str]) -> None:
        """Assign the records to offers, of which ``slots`` names each record.

        A record of an earlier version that names no offer gets the first. Raises
        `StartupError` if the settings lose one that names an instance that costs money:
        see `check_claims`.
        """


class UsageStore(Protocol):
    """Keeps what keys used, by day, key and model."""

    def add_usage(self, rows: Collection[UsageRow]) -> None:
        """Add each row to the one of its day, key and model, all or none.

        Raises `StoreError`.
        """

    def usage(
        self, since: str, key_id: KeyId | None, by: Collection[UsageField]
    ) -> list[UsageRow]:
        """Return sums since a day, of one key or of all, as `sum_rows` does.

        Raises `StoreError`.
        """

    def trim_usage(self, since: str, most: int) -> None:
        """Forget what is older than a day, and the oldest rows beyond ``most``.

        Raises `StoreError`.
        """


class CommitmentStore(Protocol):
    """Keeps the most that each key may have used in a period, of each kind.

    A commitment is written before the use that it allows, so that a crash forgets
    nothing. Of each kind the `PERIODS` of a key are kept that were written last.
    """

    def commitments(self, key: KeyId) -> dict[tuple[str, str], int]:
        """Return the commitments of a key, by kind and period. Raises `StoreError`."""

    def put_commitment(self, key: KeyId, kind: str, period: str, amount: int) -> None:
        """Write a commitment, in place of the one for the kind and period.

        Raises `StoreError` if it is not on disk afterwards.
        """


class Health(Protocol):
    """Reports faults of a store."""

    @property
    def problem(self) -> str | None:
        """Return why the last write failed, until one succeeds again."""

    @property
    def damage(self) -> list[str]:
        """Return what an earlier process left that could not be read, in words."""


class Store(
    RecordStore,
    LaunchRegister,
    LaunchHistory,
    Journal,
    AuditStore,
    KeyStore,
    NodeKeyStore,
    NodeStore,
    UsageStore,
    ModelStore,
    Places,
    NoteStore,
    MarkStore,
    Ownership,
    CommitmentStore,
    Health,
    Protocol,
):
    """Holds one deployment's whole state, owned by one process at a time."""

    @property
    def stages(self) -> StageHistory:
        """Return what is known of the stages of launches."""

    def forget(self, launch_ids: Collection[LaunchId]) -> None:
        """Remove launches that have ended from every record.

        Raises `StoreError`.
        """

    def close(self) -> None:
        """Let another process have the store."""
