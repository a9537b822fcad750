"""Remember the models that clients put on an instance, for the next instance.

A model that was pulled or copied is pulled again on a fresh instance. A model that was
created exists nowhere else: when its disk is gone it is lost, and reported as lost.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec
import structlog

from ollama_proxy.base import log
from ollama_proxy.base.errors import StoreError
from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ollama.model_names import full_model_name
from ollama_proxy.core.ports import ModelStore
from ollama_proxy.core.restore_plan import Origin, RestoreStep, StickyModel, steps_to


class RestoredModels:
    """Remembers changes of models by clients; ``restores`` missing ones if True.

    - ``serves``: which models are those of the pool, by full name.
    - ``has_ready``: whether the instance of a launch serves; none does until it is set.
    - ``revision``: grows with each change.
    """

    def __init__(
        self,
        store: ModelStore,
        configured: Collection[str],
        *,
        restores: bool,
        serves: Callable[[str], bool] = lambda _name: True,
    ) -> None:
        self._store = store
        self._configured = frozenset(full_model_name(name) for name in configured)
        self._restores = restores
        self._log = structlog.get_logger()
        remembered = store.sticky_models()
        self._models = {one.name: one for one in remembered if serves(one.name)}
        self.has_ready: Callable[[LaunchId], bool] = lambda _launch_id: False
        self.revision = 0

    def without_restoring(self) -> "RestoredModels":
        """Return a view for instances that keep their models: nothing is missing."""
        view = copy.copy(self)
        view._restores = False  # noqa: SLF001 - of the same class
        return view

    def without_deleted(self, names: Collection[str]) -> list[str]:
        """Return the configured models without those that a client deleted.

        A configured name under which a client created a model is left out as well: a
        pull would bring a different model.
        """
        return [name for name in names if not self._is_replaced(full_model_name(name))]

    def expected(self, configured: Sequence[str]) -> list[str]:
        """Return the models that the next instance will have: configured, restored."""
        names = self.without_deleted(configured)
        if not self._restores:
            return names
        there = {full_model_name(name) for name in names}
        return names + [
            model.written or model.name
            for model in self._models.values()
            if model.origin is Origin.PULLED
            and model.lost is None
            and model.name not in there
        ]

    def hoped_for(self) -> list[str]:
        """Return the models that clients put there, without those that are lost.

        Each launch tries again to restore what could not be restored before.
        """
        return [
            model.name
            for model in self._models.values()
            if model.origin is Origin.PULLED
            or (model.origin is Origin.CREATED and model.lost is None)
        ]

    def _is_replaced(self, name: str) -> bool:
        model = self._models.get(name)
        return model is not None and (
            model.origin is not Origin.PULLED or model.is_copy
        )

    def steps(self, present: set[str]) -> list[RestoreStep]:
        """Return what a fresh instance with these models still needs."""
        if not self._restores:
            return []
        return steps_to(self._models, self._configured, present)

    def settle(self, present: set[str], failed: Mapping[str, str]) -> None:
        """Take in what a fresh instance has, and why it lacks the rest."""
        if not self._restores:
            return
        for model in list(self._models.values()):
            if model.origin is Origin.DELETED or self._is_elsewhere(model):
                continue
            self._put(msgspec.structs.replace(model, lost=_why(model, present, failed)))

    def _is_elsewhere(self, model: StickyModel) -> bool:
        """Tell whether another instance, which serves, alone has a created model."""
        is_created = model.origin is Origin.CREATED and bool(model.launch)
        return is_created and self.has_ready(LaunchId(model.launch))

    def lost(self) -> Iterator[StickyModel]:
        """Yield the models that could not be brought back."""
        return (model for model in self._models.values() if model.lost is not None)

    def pulled(self, name: str, *, insecure: bool) -> None:
        """Remember a model that a client pulled."""
        full = full_model_name(name)
        if full in self._configured and not insecure:
            self._drop(full)
        elif name:
            self._put(StickyModel(full, Origin.PULLED, name, name, insecure))

    def copied(self, source: str, destination: str) -> None:
        """Remember a copy: as a pull of its original, or as created if that was."""
        if not source or not destination:
            return
        root = self._models.get(full_model_name(source))
        if root is None or root.origin is Origin.DELETED:
            root = StickyModel(full_model_name(source), Origin.PULLED, source, source)
        name = full_model_name(destination)
        self._put(
            msgspec.structs.replace(root, name=name, written=destination, lost=None)
        )

    def created(self, name: str, on: LaunchId | None = None) -> None:
        """Remember that a model exists on its instance alone, that of a launch."""
        if name:
            full = full_model_name(name)
            self._put(StickyModel(full, Origin.CREATED, written=name, launch=on or ""))

    def created_on(self) -> dict[str, LaunchId]:
        """Return on which instance alone each model that was created exists."""
        return {
            model.name: LaunchId(model.launch)
            for model in self._models.values()
            if model.origin is Origin.CREATED and model.launch
        }

    def deleted(self, name: str) -> None:
        """Forget a model; a configured one is remembered as unwanted."""
        full = full_model_name(name)
        if full in self._configured and name:
            self._put(StickyModel(full, Origin.DELETED))
        else:
            self._drop(full)

    def missed(self, name: str) -> None:
        """Forget a lost model that a client tried to delete."""
        model = self._models.get(full_model_name(name))
        if model is not None and model.lost is not None:
            self._drop(model.name)

    def _put(self, model: StickyModel) -> None:
        before = self._models.get(model.name)
        if before == model:
            return
        self._models[model.name] = model
        self.revision += 1
        if model.lost is not None and (before is None or before.lost is None):
            self._log.warning(log.MODEL_LOST, model=model.name, reason=model.lost)
        try:
            self._store.put_sticky(model)
        except StoreError as error:
            self._log.error(log.STORE_FAILED, error=str(error))

    def _drop(self, name: str) -> None:
        if self._models.pop(name, None) is None:
            return
        self.revision += 1
        try:
            self._store.drop_sticky(name)
        except StoreError as error:
            self._log.error(log.STORE_FAILED, error=str(error))


def _why(
    model: StickyModel, present: set[str], failed: Mapping[str, str]
) -> str | None:
    if model.name in present:
        return None
    if model.origin is Origin.CREATED:
        return "it was created on an instance whose disk is gone; create it again"
    return failed.get(model.source, "it could not be brought back")
