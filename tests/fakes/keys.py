"""Keys of a test, of every standing that one can have."""

from dataclasses import dataclass, replace
from typing import Final

from ollama_proxy.core.access.audit import AuditLine
from ollama_proxy.core.access.keys import Key, KeyId, Rights
from ollama_proxy.core.access.route_classes import RouteClass
from ollama_proxy.gateway.key_text import digest_of, key_text
from ollama_proxy.store.ports import KeyStore

LINE: Final = AuditLine(1.0, "", "", "key add")
EVERYTHING: Final = Rights(routes=frozenset(RouteClass))


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key, and its text, which nothing of the proxy keeps."""

    key: Key
    text: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.text}"}


def make_key(number: int, name: str, rights: Rights = EVERYTHING) -> MadeKey:
    """Return a key that is always the same for a number below 256."""
    key_id = KeyId(f"{number:08x}")
    text = key_text(key_id, bytes([number] * 32))
    return MadeKey(Key(key_id, name, digest_of(text), rights), text)


def of_routes(*routes: RouteClass) -> Rights:
    return Rights(routes=frozenset(routes))


GOOD: Final = make_key(1, "good")
ADMIN_ALONE: Final = make_key(2, "admin", of_routes(RouteClass.ADMIN))
READER: Final = make_key(3, "reader", of_routes(RouteClass.READ))
WRITER: Final = make_key(4, "writer", of_routes(RouteClass.WRITE))
UNKNOWN: Final = make_key(5, "unknown")
DISABLED: Final = MadeKey(
    replace(make_key(6, "disabled").key, is_disabled=True), make_key(6, "").text
)
EXPIRED: Final = MadeKey(
    replace(make_key(7, "expired").key, expires_at=2.0), make_key(7, "").text
)


def put_keys(store: KeyStore, *made: MadeKey) -> None:
    """Store keys, before a proxy reads the store."""
    for one in made:
        store.put_key(one.key, LINE)
