"""Remember what the changes of models did: for the next instance, and for this one."""

from typing import Final

import msgspec

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.core.ollama.loose_json import read_loosely
from ollama_proxy.core.ollama.pull_progress import read_progress
from ollama_proxy.core.request_facts import Facts
from ollama_proxy.fleet.restored_models import RestoredModels
from ollama_proxy.serving.pull import PullRequest
from ollama_proxy.serving.whereabouts import Whereabouts

_OK: Final = 200
_CREATED: Final = 201
_NOT_FOUND: Final = 404


class Change(PullRequest, frozen=True):
    """Holds the names in the body of any request that changes models."""

    source: str = ""
    destination: str = ""


class _Creation(msgspec.Struct):
    """Holds what of a creation says where it can run."""

    source: str = msgspec.field(name="from", default="")


def read_change(body: bytes) -> Change:
    """Return what a request names; nothing if its body can't be read."""
    return read_loosely(body, Change) or Change()


def made_from(facts: Facts) -> str:
    """Return the model that a request makes another of; "" if it does not."""
    if facts.route.name != "/api/create":
        return ""
    return (read_loosely(facts.body.head, _Creation) or _Creation()).source


def is_done(status: int, tail: bytes) -> bool:
    """Tell whether a pull or a creation succeeded, by the last line of its answer."""
    return status == _OK and read_progress(tail).status == "success"


class ChangeNotes:
    """Takes note of the changes that succeeded.

    ``restored``: None if models of clients are not pulled again.
    """

    def __init__(self, restored: RestoredModels | None, places: Whereabouts) -> None:
        self._restored = restored
        self._places = places

    def pulled(self, request: PullRequest) -> None:
        """Remember a pull that succeeded."""
        if self._restored is not None:
            self._restored.pulled(request.model_name, insecure=request.insecure)

    def uploaded(self, path: str, status: int, launch_id: LaunchId) -> None:
        """Remember that an instance has a file, by the answer to what asked for it."""
        if status in {_OK, _CREATED}:
            self._places.uploaded(path.partition("?")[0], launch_id)

    def note(
        self,
        route: str,
        change: Change,
        status: int,
        tail: bytes,
        on: LaunchId,
        *,
        is_node: bool = False,
    ) -> None:
        """Remember the change that a request made, if its response shows success.

        ``tail``: the last line of the answer. ``on``: the launch that it was sent to;
        what a node has is in its next beat, and until then only this knows it.
        """
        match route:
            case "/api/create" if is_done(status, tail):
                self._created(change.model_name, on)
            case "/api/copy" if status == _OK:
                self._copied(change, on if is_node else None)
            case "/api/delete" if status == _OK:
                self._places.spread(change.model_name)
                if self._restored is not None:
                    self._restored.deleted(change.model_name)
            case "/api/delete" if status == _NOT_FOUND and self._restored is not None:
                self._restored.missed(change.model_name)

    def _created(self, model: str, on: LaunchId) -> None:
        self._places.created(model, on)
        if self._restored is not None:
            self._restored.created(model, on)

    def _copied(self, change: Change, node: LaunchId | None) -> None:
        self._places.copied(change.source, change.destination)
        if node is not None:
            self._places.created(change.destination, node)
        if self._restored is not None:
            self._restored.copied(change.source, change.destination)
