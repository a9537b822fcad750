"""Read a beat: the snapshot of itself that a node sends every half a minute.

Former agents tell ``node_id, ipv4, ipv6, port, models, metadata, load``; ours add
``agent``. All that lists, logs or choices use is checked here, with bounds, since the
sender may be hostile. Keys that are not known are ignored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from ollama_proxy.core.nodes.beat_models import (
    NO_MODELS,
    BeatModels,
    full_name,
    models_of_entries,
    models_of_names,
)
from ollama_proxy.core.nodes.labels import check_labels
from ollama_proxy.core.nodes.node_id import check_node_id
from ollama_proxy.core.ollama.loose_json import UNREADABLE

LARGEST_BEAT: Final = 1 << 20
_LONGEST_TEXT: Final = 255
_LONGEST_FAULT: Final = 400
_BASE_BYTES: Final = 4096
"""What is kept of a beat besides its models, about."""

_Share = Annotated[float, Meta(ge=0, le=1e6)]
_Bytes = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Text = Annotated[str, Meta(max_length=_LONGEST_TEXT)]
_Port = Annotated[int, Meta(ge=1, le=65535)]


class BeatError(ValueError):
    """Reports a beat that is refused: the status, and the reason as a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Gpu(msgspec.Struct, frozen=True):
    """Holds what a beat tells of a GPU: ``use`` from 0 to 1, memory in bytes."""

    name: _Text = ""
    use: _Share | None = None
    memory_used: _Bytes | None = None
    memory_total: _Bytes | None = None


class LoadedModel(msgspec.Struct, frozen=True):
    """Holds what a beat tells of a model in memory, as ``/api/ps`` lists it."""

    name: str
    size: _Bytes = 0
    size_vram: _Bytes = 0
    expires_at: _Text = ""


class Pulling(msgspec.Struct, frozen=True):
    """Holds what a beat tells of a model that the node pulls; sizes in bytes."""

    name: _Text
    completed: _Bytes = 0
    total: _Bytes = 0


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """Holds what only our own agent tells. ``fault``: why it has no models.

    ``slots``: how many requests its Ollama works on at a time; ``in_flight``: how many
    it works on, those of others included.
    """

    boot_id: str
    seq: int
    scheme: str
    version: str
    ollama: str | None
    loaded: tuple[LoadedModel, ...]
    slots: int | None
    in_flight: int
    gpus: tuple[Gpu, ...]
    is_draining: bool
    fault: str
    disk_free: int | None
    pulling: Pulling | None


@dataclass(frozen=True, slots=True)
class Beat:
    """Holds a beat. ``agent``: None from a former agent. Shares are from 0 to 1."""

    node_id: str
    host_name: str
    ipv4: str | None
    ipv6: str | None
    port: int
    models: BeatModels
    cpu: float
    memory: float
    labels: Mapping[str, str]
    agent: AgentFacts | None
    loaded: frozenset[str] | None

    @property
    def kept_bytes(self) -> int:
        """Return about how much memory it takes."""
        return _BASE_BYTES + self.models.kept_bytes


class _Load(msgspec.Struct):
    cpu: _Share | None = None
    memory: _Share | None = None


class _Metadata(msgspec.Struct):
    hostname: _Text | None = None


class _Agent(msgspec.Struct):
    boot_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    seq: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    scheme: Literal["http", "https"] = "http"
    version: _Text = ""
    ollama: _Text | None = None
    models: msgspec.Raw = msgspec.Raw(b"[]")
    loaded: Annotated[list[LoadedModel], Meta(max_length=1000)] = []
    slots: Annotated[int, Meta(ge=1, le=1024)] | None = None
    in_flight: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    gpus: Annotated[list[Gpu], Meta(max_length=64)] = []
    draining: bool = False
    fault: str = ""
    labels: dict[str, Any] = {}
    disk_free: _Bytes | None = None
    pulling: Pulling | None = None


class _Beat(msgspec.Struct):
    node_id: str
    port: _Port = 8001
    ipv4: _Text | None = None
    ipv6: _Text | None = None
    models: msgspec.Raw = msgspec.Raw(b"[]")
    metadata: _Metadata | None = None
    load: _Load | None = None
    agent: _Agent | None = None


_DECODER: Final = msgspec.json.Decoder(_Beat, strict=False)
"""Takes numbers in quotes, as the former hub did."""


def parse_beat(body: bytes, known: Callable[[str], Beat | None] | None = None) -> Beat:
    """Return the beat of a body; raises `BeatError`.

    ``known`` returns the last beat of a node: its models are used again if they are the
    same in this one, which spares most of the work.
    """
    if len(body) > LARGEST_BEAT:
        raise too_large()
    read = _decoded(body)
    try:
        node_id = check_node_id(read.node_id)
        last = known(node_id) if known is not None else None
        host_name = (read.metadata.hostname if read.metadata else None) or ""
        _check_line("metadata.hostname", host_name)
        load = read.load or _Load()
        agent = read.agent
        return Beat(
            node_id=node_id,
            host_name=host_name,
            ipv4=_address("ipv4", read.ipv4, IPv4Address),
            ipv6=_address("ipv6", read.ipv6, IPv6Address),
            port=read.port,
            models=_models(read, last.models if last is not None else NO_MODELS),
            cpu=min(load.cpu or 0.0, 1.0),
            memory=min(load.memory or 0.0, 1.0),
            labels=check_labels(agent.labels) if agent else {},
            agent=_agent_facts(agent) if agent else None,
            loaded=_loaded_names(agent) if agent else None,
        )
    except (ValueError, RecursionError) as error:
        raise _no_beat(error) from None


def too_large() -> BeatError:
    """Return the refusal of a body that is longer than a beat may be."""
    most = LARGEST_BEAT >> 20
    return BeatError(
        413, f"a beat has up to {most} MiB, and this one is longer; tell fewer models"
    )


def _decoded(body: bytes) -> _Beat:
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise _no_beat(error) from None
    except (*UNREADABLE, RecursionError) as error:
        raise BeatError(
            400, f"the body is not JSON ({_sentence(str(error))})"
        ) from None


def _no_beat(error: Exception) -> BeatError:
    """Return a refusal; some errors quote a value, which may be of any length."""
    return BeatError(422, f"this is no beat of a node: {_sentence(str(error))}")


def _models(read: _Beat, last: BeatModels) -> BeatModels:
    """Return the models: our agent's entries, which a draining one still has."""
    told = bytes(read.models if read.agent is None else read.agent.models)
    if last.is_told_by(told):
        return last
    return models_of_names(told) if read.agent is None else models_of_entries(told)


def _agent_facts(agent: _Agent) -> AgentFacts:
    for key, text in (("version", agent.version), ("ollama", agent.ollama or "")):
        _check_line(f"agent.{key}", text)
    for gpu in agent.gpus:
        _check_line("agent.gpus", gpu.name)
    if agent.pulling is not None:
        _check_line("agent.pulling", agent.pulling.name)
    return AgentFacts(
        boot_id=agent.boot_id,
        seq=agent.seq,
        scheme=agent.scheme,
        version=agent.version,
        ollama=agent.ollama,
        loaded=tuple(agent.loaded),
        slots=agent.slots,
        in_flight=agent.in_flight,
        gpus=tuple(agent.gpus),
        is_draining=agent.draining,
        fault=_sentence(agent.fault),
        disk_free=agent.disk_free,
        pulling=agent.pulling,
    )


def _loaded_names(agent: _Agent) -> frozenset[str] | None:
    """Return what is in memory; None: not known, as Ollama could not be asked."""
    if agent.fault and not agent.loaded:
        return None
    return frozenset(full_name(one.name) for one in agent.loaded)


@lru_cache(maxsize=4096)  # a node tells the same at each beat
def _address(
    key: str, text: str | None, kind: type[IPv4Address] | type[IPv6Address]
) -> str | None:
    """Return an address as it is usually written; None for none.

    A zone (``%eth0``), which systems tell of link-local addresses, is left out.
    """
    if not text:
        return None
    try:
        return str(kind(text.partition("%")[0]))
    except ValueError:
        raise ValueError(f"{key!r} is no such address: {text[:60]!r}") from None


def _check_line(key: str, text: str) -> None:
    if text and not text.isprintable():
        raise ValueError(f"{key!r} is not one line of text: {text[:60]!r}")


def _sentence(text: str) -> str:
    """Return a foreign sentence on one line, without what a terminal obeys."""
    line = " ".join(text[: 4 * _LONGEST_FAULT].split())[:_LONGEST_FAULT]
    return "".join(one if one.isprintable() else "?" for one in line)
