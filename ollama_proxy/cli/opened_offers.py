"""Open every offer's backend for a command, and the state folder with them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing

from ollama_proxy.base.clock import Clock, open_clock
from ollama_proxy.base.errors import StartupError
from ollama_proxy.composition import open_backends
from ollama_proxy.config.pools import OfferSpec
from ollama_proxy.config.settings import Settings
from ollama_proxy.fleet.backend import Backend
from ollama_proxy.store.opening import open_store
from ollama_proxy.store.ports import Store


@asynccontextmanager
async def opened_alone(
    settings: Settings,
) -> AsyncIterator[tuple[Store, Clock, Mapping[str, Backend]]]:
    """Open the state folder, which no proxy has now, and the backends by their offers.

    Raises `StartupError` while a proxy runs on the folder.
    """
    with closing(open_store(settings.state_dir)) as store:
        clock = open_clock(store)
        async with opened_backends(settings, store, clock) as backends:
            yield store, clock, backends


@asynccontextmanager
async def opened_backends(
    settings: Settings, store: Store, clock: Clock
) -> AsyncIterator[Mapping[str, Backend]]:
    """Open the backends by their offers, in a state folder that is open."""
    async with AsyncExitStack() as stack:
        backends = open_backends(settings, store, clock)
        for backend in backends.values():
            await stack.enter_async_context(aclosing(backend))
        yield backends


def chosen_offer(settings: Settings, name: str | None) -> OfferSpec:
    """Return the offer of a name; without one, the only offer.

    Raises `StartupError` if there are several, or none of that name.
    """
    offers = {offer.name: offer for offer in settings.offers}
    known = ", ".join(offers)
    if name is None:
        if len(offers) > 1:
            raise StartupError(f"there are several offers; name one: --offer {known}")
        return next(iter(offers.values()))
    if name not in offers:
        raise StartupError(f"--offer: no offer {name!r}; known: {known}")
    return offers[name]
