"""Every setting, read once: from the environment, else from one TOML file.

All faults are reported at once. The environment wins over the file. Names that
users of Ollama and of the proxy's forerunners know keep working.
"""

import difflib
import os
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
)
from pydantic import ValidationError as PydanticValidationError
from pydantic.fields import FieldInfo

from ollama_proxy.backends.exoscale.settings import ExoscaleSettings
from ollama_proxy.backends.fly.settings import FlySettings
from ollama_proxy.backends.ovh.settings import OvhSettings
from ollama_proxy.base.environment import expanded, state_folder, without_quotes
from ollama_proxy.base.errors import SettingsError
from ollama_proxy.base.fields import (
    OWN_PREFIX,
    BackendSettings,
    Duration,
    Names,
    Size,
    environment_names,
    is_secret,
    setting,
)
from ollama_proxy.base.parsers import Listen, parse_listen, parse_log_level
from ollama_proxy.base.upstream_url import (
    UpstreamUrl,
    parse_upstream_url,
    shown_input,
    without_logins,
)
from ollama_proxy.config.selection import (
    Groups,
    Selection,
    gather_evidence,
    select_backend,
)
from ollama_proxy.config.service_links import without_service_links
from ollama_proxy.config.setting_names import check_names
from ollama_proxy.config.upstream_access import (
    access_faults,
    parse_headers,
    parse_token,
)
from ollama_proxy.core.access.cors import CorsPolicy
from ollama_proxy.fleet.gpu_use import GpuCheck
from ollama_proxy.fleet.memory_estimate import needed_gb
from ollama_proxy.serving.extra_routes import parse_routes
from ollama_proxy.serving.idle_ignores import IgnoreRule, parse_ignores

UpstreamAddress = Annotated[UpstreamUrl, BeforeValidator(parse_upstream_url)]


def _check_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    CorsPolicy(value)
    return value


def _lower(value: object) -> str:
    return str(value).strip().lower()


def _state_dir() -> Path:
    return state_folder(os.environ)


def _expanded(path: Path) -> Path:
    return expanded(path, os.environ)


_HOPELESS = 1.3  # an estimate may be wrong by so much
_UNKNOWN = "extra_forbidden"  # its value may be a secret under a misspelt name


class Settings(BaseModel):
    """The settings of one proxy. Lengths are seconds, sizes bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    listen: Annotated[Listen, BeforeValidator(parse_listen)] = setting(
        "127.0.0.1:11434",
        "OLLAMA_HOST",
        text="listen address, read as Ollama's server reads it",
        shown="127.0.0.1:11434",
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
    origins: Annotated[Names, AfterValidator(_check_origins)] = setting(
        (),
        "OLLAMA_ORIGINS",
        text="comma-separated origins that may ask besides Ollama's own; `*` = all",
        shown="–",
    )
    upstream_url: UpstreamAddress | None = setting(
        None,
        "OLLAMA_PROXY_UPSTREAM_URL",
        text="the Ollama server that `static` points at; it may have a login:"
        " `http://user:password@host:11434`",
        shown="–",
        is_secret=True,
    )
    upstream_is_gateway: bool = setting(
        "false",
        "OLLAMA_PROXY_UPSTREAM_IS_GATEWAY",
        text="there is a gateway before that server: a clean early end is a loss",
        shown="false",
    )
    upstream_token: Annotated[SecretStr, BeforeValidator(parse_token)] | None = setting(
        None,
        "OLLAMA_PROXY_UPSTREAM_TOKEN",
        text="a token that server wants as `Authorization: Bearer`; clients' own is"
        " replaced",
        shown="–",
    )
    upstream_headers: Annotated[
        dict[str, SecretStr], BeforeValidator(parse_headers)
    ] = setting(
        dict,
        "OLLAMA_PROXY_UPSTREAM_HEADERS",
        text="headers that server wants, one `Name: value` a line, or a JSON object",
        shown="–",
    )
    upstream_ca: Path | None = setting(
        None,
        "OLLAMA_PROXY_UPSTREAM_CA",
        text="a PEM file with the certificates that are trusted there, and no others",
        shown="the system's, or `SSL_CERT_FILE`",
    )
    upstream_insecure: bool = setting(
        "false",
        "OLLAMA_PROXY_UPSTREAM_INSECURE",
        text="whether any certificate will do there: whoever is on the way can listen",
        shown="false",
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
        text="without in-flight work, then the instance goes",
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
        text="without progress, then a launch is given up, stopped and reported",
        shown="30m",
    )
    max_lifetime: Annotated[Duration, Field(ge=60)] | None = setting(
        None,
        "OLLAMA_PROXY_MAX_LIFETIME",
        text="so long after its launch an instance goes, in use or not",
        shown="–",
    )
    drain_timeout: Duration = setting(
        "10m",
        "OLLAMA_PROXY_DRAIN_TIMEOUT",
        text="how long streams may go on after a stop was asked for",
        shown="10m",
    )
    stall_timeout: Duration = setting(
        "10m",
        "OLLAMA_PROXY_STALL_TIMEOUT",
        text="without a byte sent or taken, then a client is taken for gone",
        shown="10m",
    )
    sticky_models: bool = setting(
        "true",
        "OLLAMA_PROXY_STICKY_MODELS",
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
        Literal["auto", "true", "false"], BeforeValidator(_lower)
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
    gpu_check: Annotated[GpuCheck, BeforeValidator(_lower)] = setting(
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
    ollama_bin: str | None = setting(
        None,
        "OLLAMA_PROXY_OLLAMA_BIN",
        text="the `ollama` program that `local` runs",
        shown="`ollama` on the PATH",
    )
    simulator: Literal["auto", "always", "never"] = setting(
        "auto",
        "OLLAMA_PROXY_SIMULATOR",
        text="whether `local` runs the simulator: `auto` = if there is no `ollama`",
        shown="auto",
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
    exoscale: ExoscaleSettings = Field(
        default_factory=ExoscaleSettings, description="settings of `exoscale`"
    )
    fly: FlySettings = Field(
        default_factory=FlySettings, description="settings of `fly`"
    )
    ovh: OvhSettings = Field(
        default_factory=OvhSettings, description="settings of `ovh`"
    )
    backend_options: dict[str, Any] = setting(
        dict,
        text="settings of a plug-in: a table in the settings file",
        shown="–",
    )
    _selection: Selection = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Keep which backend was selected when the settings were read.

        ``context`` is that `Selection`; without one it is selected from the values.
        """
        if not isinstance(context, Selection):
            values = self.model_dump(exclude_unset=True)
            context = select_backend(gather_evidence(values, {}, backend_groups(), ()))
        self._selection = context

    @property
    def selection(self) -> Selection:
        """Which backend is used, and why."""
        return self._selection


def load_settings(env: Mapping[str, str], file: Path | None = None) -> Settings:
    """Read the settings, or raise `SettingsError` with every fault.

    ``file`` is the TOML file; if None, ``./ollama-proxy.toml`` if it is there.
    """
    faults: list[str] = []
    env = without_quotes(without_service_links(env))
    values, origin = _read_file(file, faults)
    tables = frozenset(values)
    for name, (text, variable) in _read_environment(env, faults).items():
        group, _, key = name.rpartition(".")
        table = values.setdefault(group, {}) if group else values
        if isinstance(table, dict):
            table[key] = text
            origin[name] = variable
    for key in ("backend", "default_backend", "simulator"):
        if isinstance(values.get(key), str):
            values[key] = str(values[key]).strip().lower()
    groups = backend_groups()
    selection = select_backend(gather_evidence(values, origin, groups, tables))
    given = [name for name, text in env.items() if text]
    selection, wrong = check_names(
        selection, values, origin, groups, _variables_by_group(), given
    )
    faults += wrong
    settings = _validated(values, origin, selection, faults)
    if settings is not None:
        faults += _contradictions(settings)
    if faults or settings is None:
        raise SettingsError(faults)
    return settings


def _variables_by_group() -> dict[str, list[str]]:
    """Return every environment variable that is read, by group; "" has the rest.

    ``EXOSCALE_IDLE_TIMEOUT`` is a setting of the proxy by an older name: by that name
    it is one of Exoscale's.
    """
    found: dict[str, list[str]] = {}
    prefixes = {f"{group.upper()}_": group for group in backend_groups()}
    for name, one in every_setting().items():
        for variable in environment_names(one):
            word = variable.partition("_")[0] + "_"
            group = name.rpartition(".")[0] or prefixes.get(word, "")
            found.setdefault(group, []).append(variable)
    return found


def _read_file(
    file: Path | None, faults: list[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    path = file if file is not None else Path("ollama-proxy.toml")
    if file is None and not _is_there(path):
        return {}, {}
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        faults.append(f"{path}: the settings file can't be read: {error}")
        return {}, {}
    for key in sorted(set(values) - set(Settings.model_fields)):
        faults.append(f"{path}: unknown setting {key!r}{_guess(key, _file_keys())}")
        del values[key]
    return values, {key: f"{path}: {key}" for key in values}


def _is_there(path: Path) -> bool:
    """Tell whether a file is there; not if its folder may not even be searched."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _file_keys() -> list[str]:
    return sorted(Settings.model_fields)


def _read_environment(
    env: Mapping[str, str], faults: list[str]
) -> dict[str, tuple[str, str]]:
    """Return the settings that the environment has, and from which variable."""
    found: dict[str, tuple[str, str]] = {}
    known: set[str] = set()
    for name, field in every_setting().items():
        variables = environment_names(field)
        known.update(variables)
        given = [
            (variable, env[variable]) for variable in variables if env.get(variable)
        ]
        if name == "models" and given:
            found[name] = (",".join(text for _, text in given), given[0][0])
        elif given:
            found[name] = (given[0][1], given[0][0])
    for variable in sorted(env):
        if variable.startswith(OWN_PREFIX) and variable not in known:
            guess = _guess(variable, sorted(known))
            faults.append(f"{variable}: unknown setting{guess}")
    return found


def every_setting() -> dict[str, FieldInfo]:
    """Return each setting by its name; those of a group as ``group.name``."""
    found: dict[str, FieldInfo] = {}
    for name, field in Settings.model_fields.items():
        if (group := group_of(field)) is None:
            found[name] = field
        else:
            found |= {f"{name}.{key}": one for key, one in group.model_fields.items()}
    return found


def backend_groups() -> Groups:
    """Return the settings of each backend that has some of its own."""
    fields = Settings.model_fields.items()
    return {name: group for name, one in fields if (group := group_of(one)) is not None}


def group_of(field: FieldInfo) -> type[BackendSettings] | None:
    """Return the settings that a field groups; None if it is one setting."""
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, BackendSettings):
        return kind
    return None


def _guess(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


def _validated(
    values: dict[str, Any],
    origin: dict[str, str],
    selection: Selection,
    faults: list[str],
) -> Settings | None:
    try:
        return Settings.model_validate(values, context=selection)
    except PydanticValidationError as error:
        for fault in error.errors():
            name = ".".join(str(part) for part in fault["loc"][:2]) or "settings"
            name = name if name in every_setting() else name.partition(".")[0]
            message = fault["msg"].removeprefix("Value error, ")
            where = origin.get(name, name)
            told = fault["type"] == _UNKNOWN or is_secret(every_setting().get(name))
            shown = "" if told else shown_input(fault["input"], message)
            faults.append(f"{where}: {without_logins(message)}{shown}")
        return None


def _contradictions(settings: Settings) -> list[str]:
    """Name what is wrong between settings that are right one by one."""
    faults = []
    backend, exoscale = backend_name(settings), settings.exoscale
    if settings.selection.rivals:
        meant = " and ".join(settings.selection.meant)
        faults.append(
            f"OLLAMA_PROXY_BACKEND: there are settings for {meant};"
            " name the one that is meant"
        )
    if backend == "exoscale" and not (exoscale.api_key or exoscale.api_secret):
        faults.append(
            "EXOSCALE_API_KEY, EXOSCALE_API_SECRET: the backend 'exoscale' needs both;"
            " make a key in the portal under IAM"
        )
    if backend == "fly":
        faults += settings.fly.faults() + _models_too_large(settings)
    if backend == "ovh":
        faults += settings.ovh.faults()
    if backend == "static" and settings.upstream_url is None:
        faults.append(
            "OLLAMA_PROXY_UPSTREAM_URL: the backend 'static' needs the URL of a server;"
            " write http://host:11434"
        )
    if settings.backend not in {"", "static"} and settings.upstream_url is not None:
        faults.append(
            f"OLLAMA_PROXY_UPSTREAM_URL: the backend {settings.backend!r} takes no URL;"
            " remove it, or set OLLAMA_PROXY_BACKEND=static"
        )
    if backend_name(settings) != "static" and settings.upstream_is_gateway:
        faults.append(
            "OLLAMA_PROXY_UPSTREAM_IS_GATEWAY: only the backend 'static' takes it, not"
            f" for {backend_name(settings)!r}; remove it"
        )
    faults += access_faults(settings, backend)
    if settings.ollama_bin and shutil.which(settings.ollama_bin) is None:
        faults.append(
            f"OLLAMA_PROXY_OLLAMA_BIN: there is no program {settings.ollama_bin!r};"
            " install Ollama or remove the setting"
        )
    elif settings.simulator == "never" and not _has_ollama(settings):
        faults.append(
            "OLLAMA_PROXY_SIMULATOR: 'never' needs an `ollama` program and there is"
            " none on the PATH; install Ollama or remove the setting"
        )
    return faults


def _models_too_large(settings: Settings) -> list[str]:
    """Name the models that can't fit into the memory of the machine that is meant."""
    memory_gb = settings.fly.guest.memory_mb / 1024.0
    faults = []
    for model in settings.models:
        needed = needed_gb(model, None)
        if needed is not None and needed > memory_gb * _HOPELESS:
            faults.append(
                f"OLLAMA_MODEL: {model!r} wants about {needed:.1f} GB of memory, and"
                f" {settings.fly.size} has {memory_gb:.1f}; choose a larger FLY_VM_SIZE"
            )
    return faults


def _has_ollama(settings: Settings) -> bool:
    return shutil.which(settings.ollama_bin or "ollama") is not None


def backend_name(settings: Settings) -> str:
    """Return the backend that is used; `Settings.selection` says why."""
    return settings.selection.backend
