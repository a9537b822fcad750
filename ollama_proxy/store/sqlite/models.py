"""Keep the models that clients put on the instances."""

import msgspec

from ollama_proxy.core.restore_plan import StickyModel
from ollama_proxy.store.sqlite.database import Table


class SqliteModels(Table):
    """Keeps one row a model."""

    def sticky_models(self) -> list[StickyModel]:
        """Return every model that is remembered."""
        found = []
        rows = self._db.execute("SELECT name, model FROM sticky_model ORDER BY name")
        for name, raw in rows.fetchall():
            try:
                found.append(msgspec.json.decode(raw, type=StickyModel))
            except (ValueError, TypeError) as error:
                self._db.discard(
                    f"what is remembered of the model {name!r} can't be read ({error})",
                    "DELETE FROM sticky_model WHERE name = ?",
                    (name,),
                )
        return found

    def put_sticky(self, model: StickyModel) -> None:
        """Remember a model. Raises `StoreError`."""
        row = (model.name, msgspec.json.encode(model))
        with self._db.writing() as db:
            db.execute("INSERT OR REPLACE INTO sticky_model VALUES (?, ?)", row)

    def drop_sticky(self, name: str) -> None:
        """Forget a model. Raises `StoreError`."""
        with self._db.writing() as db:
            db.execute("DELETE FROM sticky_model WHERE name = ?", (name,))
