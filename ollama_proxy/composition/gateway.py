"""Build what knows the keys of clients: one of each for the whole proxy."""

from collections.abc import Callable
from dataclasses import dataclass

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.tasks import TaskOwner
from ollama_proxy.base.timing import STANDARD, Timing
from ollama_proxy.config.access_settings import AuthMode
from ollama_proxy.config.settings import Settings
from ollama_proxy.core.access.keys import Key
from ollama_proxy.core.access.usage import UsageRow
from ollama_proxy.gateway.audit import Audit
from ollama_proxy.gateway.key_changes import KeyChanges
from ollama_proxy.gateway.key_file_watch import KeyFileWatch
from ollama_proxy.gateway.key_limits import KeyLimits
from ollama_proxy.gateway.keyring import Keyring
from ollama_proxy.gateway.paid_orders import PaidOrders
from ollama_proxy.gateway.recent_clients import RecentClients
from ollama_proxy.gateway.sessions import Sessions
from ollama_proxy.gateway.spending import Spending
from ollama_proxy.gateway.usage_book import UsageBook
from ollama_proxy.serving.key_endings import KeyEndings, ended_words
from ollama_proxy.store.ports import Store


@dataclass(frozen=True, slots=True)
class Gateway:
    """Holds the keys, the orders about them, the audit, what keys may use and use."""

    keyring: Keyring
    audit: Audit
    changes: KeyChanges
    limits: KeyLimits
    paid: PaidOrders
    clients: RecentClients
    usage: UsageBook
    file: KeyFileWatch | None
    sessions: Sessions
    tasks: TaskOwner

    def start(self) -> None:
        """Begin to watch the file of keys, and to write in batches what keys used."""
        self.usage.start()
        if self.file is not None:
            self.tasks.spawn(self.file.run(), name="keys file")


@dataclass(frozen=True, slots=True)
class OpenedKeys:
    """Holds the keys of the store and of the file, if there is one."""

    keyring: Keyring
    file: KeyFileWatch | None


def open_keys(settings: Settings, store: Store, clock: Clock) -> OpenedKeys:
    """Return the keys. Raises `StartupError` for a file that can't be used."""
    keyring, path = Keyring(store, clock), settings.keys_file
    if path is None:
        return OpenedKeys(keyring, None)
    audit = Audit(store, clock)
    return OpenedKeys(keyring, KeyFileWatch(path, keyring, clock, audit))


def build_gateway(
    settings: Settings,
    store: Store,
    clock: Clock,
    keys: OpenedKeys,
    *,
    observe: Callable[[UsageRow], None],
    timing: Timing = STANDARD,
) -> Gateway:
    """Return the gateway; nothing runs yet. ``observe``: sees what keys use."""
    keyring, audit = keys.keyring, Audit(store, clock)
    sessions = Sessions(clock)
    keyring.on_ended(sessions.end_of_key)
    clients = RecentClients(clock)
    refused = clients if settings.auth is AuthMode.AUTO else None
    spending = Spending(store, clock, keyring.by_id)
    return Gateway(
        keyring=keyring,
        audit=audit,
        changes=KeyChanges(keyring, audit, clock, clients=refused),
        limits=KeyLimits(store, clock, spending),
        paid=PaidOrders(spending, clock),
        clients=clients,
        usage=UsageBook(store, clock, observe, timing=timing),
        file=keys.file,
        sessions=sessions,
        tasks=TaskOwner(),
    )


def end_with_keys(keyring: Keyring, endings: KeyEndings) -> None:
    """Have what goes on with a key end when the key does."""

    def end(before: Key) -> None:
        endings.end(before, ended_words(before, keyring.by_id(before.id)))

    keyring.on_ended(end)
