"""Keys of records, as the settings without pools have them."""

from ollama_proxy.core.slot_keys import SlotKey


def slot_of(offer: str) -> str:
    """Return the key of the one instance of an offer."""
    return str(SlotKey("default", 0, offer))


SLOT = slot_of("exoscale")
