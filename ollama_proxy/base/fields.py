"""Declare settings: default, environment variables, meaning."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.fields import FieldInfo

from ollama_proxy.base.parsers import parse_duration, parse_names, parse_size

Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
Names = Annotated[tuple[str, ...], BeforeValidator(parse_names)]


OWN_PREFIX = "OLLAMA_PROXY_"
"""The prefix of variables that are ours alone."""


class BackendSettings(BaseModel):
    """Holds the settings of one backend: a table in the file, variables of its own.

    - ``credentials``: sets of settings; a complete set selects the backend even if it
      is not named.
    - ``pairs``: settings that need each other.
    - ``bound``: settings that are about what another setting names, by that: an offer
      that names another server takes no token of the first one.
    - ``refused``: variables of a forerunner that can't be honoured, with the reason and
      what to do instead. A trailing ``*`` stands for any ending.
    - ``foreign``: variables of the cloud's own programs, which are not misspelt
      settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    credentials: ClassVar[tuple[tuple[str, ...], ...]] = ()
    pairs: ClassVar[tuple[tuple[str, ...], ...]] = ()
    bound: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    refused: ClassVar[Mapping[str, str]] = {}
    foreign: ClassVar[frozenset[str]] = frozenset()

    def faults(self) -> list[str]:
        """Return conflicts between settings that are valid one by one."""
        return []

    def warnings(self) -> list[str]:
        """Return a sentence for each allowed but unsafe setting."""
        return []

    def assumptions(self) -> list[str]:
        """List values that were assumed for missing settings and decide the price."""
        return []


def is_given(table: Mapping[str, Any], name: str) -> bool:
    """Tell whether a setting has a value that is not empty."""
    value = table.get(name)
    return value is not None and bool(str(value).strip())


def setting(
    default: Any,
    *env: str,
    text: str,
    shown: str | None = None,
    is_secret: bool = False,
    formerly: tuple[str, str] | None = None,
) -> Any:
    """Declare a setting: its default, its environment variables, its meaning.

    ``shown``: the default, as the documentation writes it. ``is_secret``: a wrong value
    is not quoted, as for a `pydantic.SecretStr`. ``formerly``: its former names in the
    file and in the environment, which go on working.
    """
    extra: dict[str, Any] = {"env": env, "shown": shown, "secret": is_secret}
    if formerly is not None:
        extra |= {"env": (*env, formerly[1]), "formerly": formerly}
    kind = "default_factory" if callable(default) else "default"
    return Field(**{kind: default}, description=text, json_schema_extra=extra)


def is_secret(field: FieldInfo | None) -> bool:
    """Tell whether a setting's value may not be shown, not even a wrong one."""
    if field is None:
        return False
    return bool(_noted(field).get("secret")) or _holds_secret(field.annotation)


def _noted(field: FieldInfo) -> Mapping[str, Any]:
    """Return what `setting` noted of a field; nothing if it did not declare it."""
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def _holds_secret(kind: Any) -> bool:
    return kind is SecretStr or any(_holds_secret(part) for part in get_args(kind))


def former_names(field: FieldInfo) -> tuple[str, str] | None:
    """Return the names that a setting had in the file and in the environment."""
    found: tuple[str, str] | None = _noted(field).get("formerly")
    return found


def environment_names(field: FieldInfo) -> tuple[str, ...]:
    """Return the environment variables of a setting, the first one preferred.

    Raises `TypeError` for a field that `setting` did not declare.
    """
    if "env" not in _noted(field):
        raise TypeError("its settings have a field that `setting` did not declare")
    return tuple(_noted(field)["env"])


def shown_name(name: str, field: FieldInfo) -> str:
    """Return how people know a setting: its first variable, or its name in the file."""
    return next(iter(environment_names(field)), name)


def shown_default(field: FieldInfo) -> str:
    """Return a setting's default as the documentation writes it."""
    return str(_noted(field).get("shown") or "–")
