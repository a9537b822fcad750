"""Accept the former names of settings, with a sentence in the log for each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ollama_proxy.base.fields import environment_names, former_names


@dataclass(slots=True)
class Renamed:
    """Holds one sentence per setting that is used by a former name, or a fault."""

    notices: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def choose(
        self, setting: FieldInfo, now: tuple[str, Any] | None, was: tuple[str, Any]
    ) -> tuple[str, Any]:
        """Return the valid one of two values of a setting, each with its shown name.

        ``now``: by the present name, None if it is not set. Two different values are a
        fault, since either may be intended.
        """
        if now is None:
            return was
        if _meant(setting, now[1]) != _meant(setting, was[1]):
            self.faults.append(
                f"{now[0]}, {was[0]}: these are one setting by its present and its"
                " former name, and their values differ; remove the second"
            )
        return now


def present_keys(
    values: Mapping[str, Any], settings: Mapping[str, FieldInfo], told: Renamed
) -> dict[str, tuple[str, Any]]:
    """Return what a settings file sets, by present names: the key in it, and the value.

    ``settings``: all by their names. Former names exist only outside of tables.
    """
    found = {key: (key, value) for key, value in values.items()}
    for name, setting in settings.items():
        former = former_names(setting)
        if former is not None and former[0] in found:
            was = found.pop(former[0])
            found[name] = told.choose(setting, found.get(name), was)
            told.notices.append(_notice(former[0], name))
    return found


def present_variable(
    setting: FieldInfo, given: Iterable[tuple[str, str]], told: Renamed
) -> list[tuple[str, str]]:
    """Return the variables that are set for a setting, without its former name.

    The former name is kept only if no other is set.
    """
    given, former = list(given), former_names(setting)
    if former is None or former[1] not in dict(given):
        return given
    was = (former[1], dict(given)[former[1]])
    rest = [one for one in given if one[0] != former[1]]
    told.notices.append(_notice(former[1], environment_names(setting)[0]))
    held: tuple[str, str] = told.choose(setting, rest[0] if rest else None, was)
    return [held, *rest[1:]]


def _notice(former: str, now: str) -> str:
    return f"{former} is called {now} by now; the former name goes on working"


def _meant(setting: FieldInfo, value: object) -> object:
    """Return a value as the setting takes it: ``true`` and ``1`` mean the same."""
    kind: Any = setting.annotation
    if setting.metadata:
        kind = Annotated[(kind, *setting.metadata)]
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return value
