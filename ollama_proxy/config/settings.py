"""Declare the proxy's own settings, each with default, variables and meaning.

`ollama_proxy.config.loader` reads them. Settings of a backend are declared with the
backend.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
)

from ollama_proxy.base.environment import expanded, state_folder
from ollama_proxy.base.fields import BackendSettings, Duration, Names, Size, setting
from ollama_proxy.base.parsers import (
    Listen,
    parse_listen,
    parse_log_level,
    parse_word,
)
from ollama_proxy.config.access_settings import AccessSettings
from ollama_proxy.config.hub_settings import HubSettings
from ollama_proxy.config.pools import (
    OfferSpec,
    Pools,
    PoolSpec,
    implicit_offer,
    implicit_pool,
    with_house,
)
from ollama_proxy.config.selection import HUB, Evidence, Selection, select_backend
from ollama_proxy.core.access.cors import CorsPolicy
from ollama_proxy.fleet.gpu_use import GpuCheck
from ollama_proxy.serving.extra_routes import parse_routes
from ollama_proxy.serving.idle_ignores import IgnoreRule, parse_ignores

S = TypeVar("S", bound=BackendSettings)


def _check_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    CorsPolicy(value)
    return value


def _state_dir() -> Path:
    return state_folder(os.environ)


def _expanded(path: Path) -> Path:
    return expanded(path, os.environ)


@dataclass(frozen=True, slots=True)
class Read:
    """Holds the results of the loader besides the proxy's own settings.

    ``of_backends``: the settings of each backend that may be used, by its name.
    ``renamed``: a sentence for each setting that is set by a former name. ``pools``:
    those of the settings file, None if it has neither pools nor offers. ``notices``:
    sentences on what is set and not used.
    """

    selection: Selection
    of_backends: Mapping[str, BackendSettings] = field(default_factory=dict)
    renamed: tuple[str, ...] = ()
    pools: Pools | None = None
    notices: tuple[str, ...] = ()


class Settings(HubSettings, AccessSettings):
    """Holds the settings of one proxy. Lengths are seconds, sizes bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    listen: Annotated[Listen, BeforeValidator(parse_listen)] = setting(
        "127.0.0.1:11434",
        "OLLAMA_HOST",
        text="listen address, read as Ollama's server reads it",
        shown="127.0.0.1:11434",
    )
    origins: Annotated[Names, AfterValidator(_check_origins)] = setting(
        (),
        "OLLAMA_ORIGINS",
        text="comma-separated origins that may ask besides Ollama's own; `*` = all",
        shown="–",
    )
    backend: str = setting(
        "",
        "OLLAMA_PROXY_BACKEND",
        text="`exoscale`, `fly`, `ovh`, `local`, `static` or the name of a plug-in",
        shown="found from credentials or an upstream URL, else `local`",
    )
    default_backend: str = setting(
        "",
        "OLLAMA_PROXY_DEFAULT_BACKEND",
        text="the backend if neither `OLLAMA_PROXY_BACKEND`, an upstream URL nor the"
        " settings file names one; credentials alone then choose none",
        shown="–; `make run` sets `local`",
    )
    models: Names = setting(
        (),
        "OLLAMA_MODEL",
        "OLLAMA_PRELOAD_MODELS",
        "PRELOAD_MODELS",
        text="comma-separated; pulled before an instance is ready;"
        " the first is loaded, unless another is waited for",
        shown="–",
    )
    idle_timeout: Duration = setting(
        "30m",
        "OLLAMA_PROXY_IDLE_TIMEOUT",
        "EXOSCALE_IDLE_TIMEOUT",
        text="stop the instance after this long without a request in flight",
        shown="30m",
    )
    hold: Duration = setting(
        "0",
        "OLLAMA_PROXY_HOLD",
        text="how long a request may wait for readiness before 503",
        shown="0",
    )
    max_hold: Duration = setting(
        "10m",
        "OLLAMA_PROXY_MAX_HOLD",
        text="the longest wait that a client's `Prefer: wait=N` gets",
        shown="10m",
    )
    max_waiting: Annotated[int, Field(ge=1)] = setting(
        10_000,
        "OLLAMA_PROXY_MAX_WAITING",
        text="how many requests may wait at once; more get 503 at once",
        shown="10000",
    )
    max_waiting_bytes: Size = setting(
        "256m",
        "OLLAMA_PROXY_MAX_WAITING_BYTES",
        text="how many bytes of bodies the waiting requests may have together",
        shown="256m",
    )
    start_timeout: Duration = setting(
        "30m",
        "OLLAMA_PROXY_START_TIMEOUT",
        text="give up, stop and report a launch after this long without progress",
        shown="30m",
    )
    max_lifetime: Annotated[Duration, Field(ge=60)] | None = setting(
        None,
        "OLLAMA_PROXY_MAX_LIFETIME",
        text="maximum age of an instance; then it is stopped even if in use",
        shown="–",
    )
    drain_timeout: Duration = setting(
        "10m",
        "OLLAMA_PROXY_DRAIN_TIMEOUT",
        text="how long streams may go on once a stop is ordered",
        shown="10m",
    )
    stall_timeout: Duration = setting(
        "10m",
        "OLLAMA_PROXY_STALL_TIMEOUT",
        text="disconnect a client that has neither sent nor read a byte for this long",
        shown="10m",
    )
    fast_path: bool = setting(
        "true",
        "OLLAMA_PROXY_FAST_PATH",
        text="serve plain requests at half the cost; `false`: all go to aiohttp",
        shown="true",
    )
    restore_models: bool = setting(
        "true",
        "OLLAMA_PROXY_RESTORE_MODELS",
        formerly=("sticky_models", "OLLAMA_PROXY_STICKY_MODELS"),
        text="pull again, on a fresh instance, what clients pulled on the last one",
        shown="true",
    )
    detached_pulls: bool = setting(
        "true",
        "OLLAMA_PROXY_DETACHED_PULLS",
        text="a pull goes on when its client leaves, eight at once; others can join it",
        shown="true",
    )
    loads_keep_awake: bool = setting(
        "true",
        "OLLAMA_PROXY_LOADS_KEEP_AWAKE",
        text="whether a request that only loads a model wakes an instance and keeps it",
        shown="true",
    )
    idle_ignores: Annotated[tuple[IgnoreRule, ...], BeforeValidator(parse_ignores)] = (
        setting(
            (),
            "OLLAMA_PROXY_IDLE_IGNORES",
            text="comma-separated health checks that neither wake nor count:"
            " `agent=Uptime-Kuma*`, `path=/v1/completions`, `tokens<=5`,"
            " or some joined by `&`",
            shown="–",
        )
    )
    wake_for_unknown_models: Annotated[
        Literal["auto", "true", "false"], BeforeValidator(parse_word)
    ] = setting(
        "auto",
        "OLLAMA_PROXY_WAKE_FOR_UNKNOWN_MODELS",
        text="whether a model that no list names wakes: `auto` = once, where models are"
        " kept",
        shown="auto",
    )
    extra_routes: Annotated[tuple[str, ...], BeforeValidator(parse_routes)] = setting(
        (),
        "OLLAMA_PROXY_EXTRA_ROUTES",
        text="comma-separated routes besides Ollama's that wake: `POST /v1/rerank`",
        shown="–",
    )
    backoff: Duration = setting(
        "10s",
        "OLLAMA_PROXY_BACKOFF",
        text="pause after a failed launch; it doubles with each failure in a row",
        shown="10s",
    )
    max_backoff: Duration = setting(
        "15m",
        "OLLAMA_PROXY_MAX_BACKOFF",
        text="the longest such pause",
        shown="15m",
    )
    failure_limit: Annotated[int, Field(ge=1)] = setting(
        3,
        "OLLAMA_PROXY_FAILURE_LIMIT",
        text="failures in a row after which held requests are given up too",
        shown="3",
    )
    launch_limit: Annotated[int, Field(ge=1)] = setting(
        5,
        "OLLAMA_PROXY_LAUNCH_LIMIT",
        text="paid launches in an hour that may serve no request; then a person acts",
        shown="5",
    )
    state_dir: Annotated[Path, AfterValidator(_expanded)] = setting(
        _state_dir,
        "OLLAMA_PROXY_STATE_DIR",
        text="SQLite file, owner id and lock: one proxy per folder",
        shown="~/.local/state/ollama-proxy, /state in the image",
    )
    gpu_check: Annotated[GpuCheck, BeforeValidator(parse_word)] = setting(
        "warn",
        "OLLAMA_PROXY_GPU_CHECK",
        text="what a loaded model that is not on the GPU means: `warn`, `fail` (the"
        " launch fails, if none of it is) or `off`",
        shown="warn",
    )
    stop_on_exit: bool = setting(
        "false",
        "OLLAMA_PROXY_STOP_ON_EXIT",
        text="stop the instance when the proxy ends (`local` always does)",
        shown="false",
    )
    asleep_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = setting(
        "0.32.15",
        "OLLAMA_PROXY_ASLEEP_VERSION",
        text="what `/api/version` says before the first instance ever",
        shown="0.32.15",
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(parse_log_level)
    ] = setting(
        "info",
        "LOG_LEVEL",
        text="debug, info, warning (`warn`) or error (`err`, `fatal`)",
        shown="info",
    )
    backend_options: dict[str, Any] = setting(
        dict,
        text="settings of a plug-in: a table in the settings file",
        shown="–",
    )
    _read: Read = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Keep the loader's other results: ``context``, if it is a `Read`.

        Without one, the backend is the one that these settings name.
        """
        if not isinstance(context, Read):
            named = Evidence(self.backend, "backend", self.default_backend)
            context = Read(select_backend(named))
        self._read = context

    @field_validator("keys_file", "tls_cert", "tls_key")
    @classmethod
    def _with_home(cls, path: Path | None) -> Path | None:
        return None if path is None else _expanded(path)

    @property
    def url(self) -> str:
        """Return where a command on this machine finds the proxy."""
        on_tls = self.tls_cert is not None or self.listen.is_tls
        return self.listen.over(is_tls=on_tls).url

    @property
    def selection(self) -> Selection:
        """Return which backend is used, and why."""
        return self._read.selection

    @property
    def renamed(self) -> tuple[str, ...]:
        """Return a sentence for each setting that is set by a former name."""
        return self._read.renamed

    @property
    def of_backend(self) -> BackendSettings:
        """Return the settings of the backend that is used; a mere function has none."""
        name = self.selection.backend
        return self._read.of_backends.get(name, BackendSettings())

    def with_pools(self, pools: Pools) -> "Settings":
        """Return the same settings with the pools and offers of the file."""
        settings = self.model_copy()
        settings._read = replace(self._read, pools=pools)  # noqa: SLF001 - our own copy
        return settings

    def noting(self, notices: Iterable[str]) -> "Settings":
        """Return the same settings with more sentences on what is not used."""
        settings = self.model_copy()
        told = (*self._read.notices, *notices)
        settings._read = replace(self._read, notices=told)  # noqa: SLF001 - our own copy
        return settings

    def reason_of(self, offer: OfferSpec) -> str:
        """Return why an offer's backend is used."""
        return f"{offer.place} names it" if offer.place else self.selection.reason

    @property
    def sentences(self) -> tuple[str, ...]:
        """Return each offer with its backend, or the backend and why it is used."""
        is_alone = self._read.pools is None or not self.selection.offered
        if is_alone and len(self.offers) == 1:
            return (self.selection.sentence,)
        return tuple(
            f"offer {one.name!r}: backend {one.backend!r}, because"
            f" {self.reason_of(one)}"
            for one in self.offers
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """Return a sentence on each thing that is set and not used."""
        pools = self._read.pools
        unused = [self.selection.notice] if self.selection.notice else []
        of_pools = pools.notices if pools is not None else ()
        return (*unused, *of_pools, *self._read.notices)

    @property
    def pools(self) -> tuple[PoolSpec, ...]:
        """Return every pool: the first that a model matches has it."""
        if self._read.pools is not None:
            return self._read.pools.pools
        hold, idle = self.hold, self.idle_timeout
        return (implicit_pool(self.offers, idle_timeout_s=idle, hold_s=hold),)

    @property
    def offers(self) -> tuple[OfferSpec, ...]:
        """Return every offer, used by a pool or not, in the order of the file."""
        if self._read.pools is not None:
            return self._read.pools.offers
        named = implicit_offer(
            self.selection.backend, self.of_backend, self.backend_options
        )
        return with_house(named, self._house)

    @property
    def _house(self) -> BackendSettings | None:
        """Return the settings of the nodes; None without them, or if a file has any."""
        return self.of_backends.get(HUB) if self.selection.has_house else None

    def of(self, kind: type[S]) -> S:
        """Return the settings of a backend by their class.

        These are the defaults if that backend can't be used: then its settings are not
        read.
        """
        given = self._read.of_backends.values()
        return next((one for one in given if isinstance(one, kind)), None) or kind()

    @property
    def of_backends(self) -> Mapping[str, BackendSettings]:
        """Return the settings of each backend that may be used."""
        return self._read.of_backends
