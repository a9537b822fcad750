"""Build the backend that the settings mean."""

import os

import msgspec

from ollama_proxy.base.clock import Clock
from ollama_proxy.base.errors import StartupError
from ollama_proxy.config.settings import Settings, backend_name
from ollama_proxy.core.ollama.suggested_model import SIMULATED_MODELS
from ollama_proxy.fleet.backend import Backend, BackendContext
from ollama_proxy.fleet.backend_loader import load_backend
from ollama_proxy.fleet.offer import Offer
from ollama_proxy.fleet.reports import secrets_in
from ollama_proxy.store.ports import Store


def open_backend(settings: Settings, store: Store, clock: Clock) -> Backend:
    """Build the backend that the settings mean."""
    name = backend_name(settings)
    factory, folder = load_backend(name), settings.state_dir
    context = BackendContext(
        store.owner_id,
        folder,
        store.notes_of(name),
        clock,
        _options(settings),
        store.remembers,
        os.environ,
    )
    try:
        backend = factory(context)
    except msgspec.DecodeError as error:
        raise StartupError(
            f"the notes of the backend {name!r} in {str(folder)!r} can't be read"
            f" ({error}); run the version that wrote them"
        ) from error
    traits = backend.traits
    store.claim(name, costs=not (traits.externally_managed or traits.child_process))
    return backend


def _options(settings: Settings) -> dict[str, object]:
    """Return the settings that a backend sees: see `BackendContext.options`."""
    own = settings.of_backend
    return {
        "models": settings.models,
        "max_lifetime": settings.max_lifetime,
        **settings.backend_options,
        **({backend_name(settings): own} if type(own).model_fields else {}),
    }


def offer_of(settings: Settings, backend: Backend) -> Offer:
    """Return what launches are made of: the backend, its settings and the models."""
    own, models = settings.of_backend, settings.models
    if not models and backend.traits.simulated:
        models = SIMULATED_MODELS
    return Offer(
        backend_name(settings),
        backend,
        models,
        own if type(own).model_fields else settings.backend_options,
        secrets_in([settings, *settings.of_backends.values()]),
    )
