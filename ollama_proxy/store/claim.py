"""Decide whether a backend may have the records of a store."""

from collections.abc import Collection

from ollama_proxy.base.errors import StartupError


def check_claim(owner: str | None, backend: str, launches: Collection[str]) -> None:
    """Refuse a backend if another one's instances are still on record.

    ``owner``: the backend that the records belong to, None if they cost nothing. Raises
    `StartupError`: otherwise these instances would be forgotten and never stopped.
    """
    if owner is None or owner == backend or not launches:
        return
    raise StartupError(
        f"there is still an instance of the backend {owner!r}"
        f" ({', '.join(sorted(launches))}); run `ollama-proxy stop` with"
        f" OLLAMA_PROXY_BACKEND={owner} and its settings first, or set"
        " OLLAMA_PROXY_STATE_DIR to another folder"
    )
