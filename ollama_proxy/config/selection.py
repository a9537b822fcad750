"""Select the backend, which decides the bill, and explain why.

Pure: it gets the settings before any value is validated, so that a wrong value of an
unused backend prevents nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ollama_proxy.base.fields import BackendSettings, is_given
from ollama_proxy.fleet.backend_plugin import BackendPlugin

_NO_CLOUD = "local"

HUB: Final = "hub"
"""The backend whose instances are nodes."""

Groups = Mapping[str, type[BackendSettings]]
"""The settings of each backend that has a table of its own, by the backend's name."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Holds the settings that speak for a backend.

    - ``backend``, ``default``: names, empty if not set. ``named_by``, ``default_by``:
      where these are set.
    - ``beside``: for each backend without a table, where the setting is that selects
      it, such as a URL.
    - ``credentials``: for each cloud, where the settings are that select it, in words.
    - ``tables``: for each cloud with a table in the settings file, where that is.
    """

    backend: str = ""
    named_by: str = ""
    default: str = ""
    default_by: str = ""
    beside: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """Names the selected backend and the reason, in words.

    - ``is_named``: a setting names it, gives it a URL or a table in the settings file,
      or makes it the default. False if it was selected by credentials, or by nothing.
    - ``rivals``: backends with equal evidence; the person must name one.
    - ``notice``: one sentence on settings that are set and not used; empty if there are
      none.
    - ``offered``: the backends of the offers, if the settings file has any; ``backend``
      is that of the first.
    - ``has_house``: the nodes of the hub come first; what follows is for when they are
      full.
    """

    backend: str
    reason: str
    is_named: bool
    rivals: tuple[str, ...] = ()
    notice: str = ""
    offered: tuple[str, ...] = ()
    has_house: bool = False

    @property
    def sentence(self) -> str:
        """Return the backend and why, for people."""
        return f"backend {self.backend!r}, because {self.reason}"

    @property
    def meant(self) -> tuple[str, ...]:
        """Return every backend that may be the one that is meant, and each offered."""
        house = (HUB,) if self.has_house else ()
        return tuple(dict.fromkeys((self.backend, *self.rivals, *self.offered, *house)))


def select_backend(evidence: Evidence) -> Selection:
    """Return the selected backend and the reason.

    A name decides; else an upstream URL or a cloud's table in the settings file; else
    the default. Credentials alone select a cloud only if there is no default.
    """
    if evidence.backend:
        reason = f"{evidence.named_by} names it"
        return Selection(evidence.backend, reason, is_named=True)
    meant = {name: f"{where} is set" for name, where in evidence.beside.items()}
    for cloud, where in evidence.credentials.items():
        if cloud in evidence.tables:
            table = evidence.tables[cloud]
            meant[cloud] = f"its table is there ({table}), and credentials in {where}"
    named = frozenset(meant)
    if evidence.default and not meant:
        reason = f"{evidence.default_by} makes it the default and none is named"
        return Selection(evidence.default, reason, is_named=True)
    if not evidence.default:
        for cloud, where in evidence.credentials.items():
            reason = f"its credentials are in {where} and no backend is named"
            meant.setdefault(cloud, reason)
    if not meant:
        reason = "no backend is named and there are no credentials of a cloud"
        return Selection(_NO_CLOUD, reason, is_named=False)
    name, *rivals = meant
    return Selection(name, meant[name], name in named, tuple(rivals))


def select_beside_house(evidence: Evidence) -> Selection:
    """Return the backend that is used beside the nodes of the hub; itself for none.

    Whatever costs money is used only if it is named: with nodes there, a request that
    is served by none of them is no reason to begin to pay.
    """
    if evidence.backend:
        reason = f"{evidence.named_by} names it"
        return Selection(evidence.backend, reason, is_named=True, has_house=True)
    reason = "the hub is on and no other backend is named"
    return Selection(HUB, reason, is_named=True, has_house=True)


def select_offered(offers: Mapping[str, str], named_by: str) -> Selection:
    """Return the backends of offers: ``offers`` has each one's, in the file's order.

    ``named_by`` says where the first of them is named.
    """
    backends = tuple(dict.fromkeys(offers.values()))
    reason = f"{named_by} names it"
    return Selection(backends[0], reason, is_named=True, offered=backends)


def gather_evidence(
    values: Mapping[str, Any],
    origin: Mapping[str, str],
    plugins: Mapping[str, BackendPlugin[Any]],
    in_file: Collection[str],
) -> Evidence:
    """Return what speaks for a backend in settings that are not validated yet.

    ``origin``: where a value is set. ``in_file``: names in the settings file.
    """

    def given(name: str) -> str:
        return str(values[name]).strip() if is_given(values, name) else ""

    meant = {
        name: " and ".join(dict.fromkeys(where))
        for name, plugin in plugins.items()
        if (where := _meant_by(plugin, values, origin))
    }
    tables = {name for name, plugin in plugins.items() if plugin.has_table}
    return Evidence(
        backend=given("backend"),
        named_by=origin.get("backend", "backend"),
        default=given("default_backend"),
        default_by=origin.get("default_backend", "default_backend"),
        beside={name: where for name, where in meant.items() if name not in tables},
        credentials={name: where for name, where in meant.items() if name in tables},
        tables={
            name: origin.get(name, name)
            for name in plugins
            if name in tables and name in in_file
        },
    )


def _meant_by(
    plugin: BackendPlugin[Any], values: Mapping[str, Any], origin: Mapping[str, str]
) -> list[str]:
    """Return where the settings stand that say a backend is meant; none: empty."""
    if not plugin.has_table:
        keys = plugin.is_meant(plugin.settings, values)
        return [origin.get(key, key) for key in keys]
    keys = plugin.is_meant(plugin.settings, table_of(values, plugin.name))
    return [place_of(plugin.name, key, origin) for key in keys]


def table_of(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return what there is of a group; nothing if it is no table."""
    table = values.get(name)
    return table if isinstance(table, Mapping) else {}


def place_of(group: str, key: str, origin: Mapping[str, str]) -> str:
    """Return where a setting of a group stands: a variable, or a table of the file."""
    return origin.get(f"{group}.{key}", origin.get(group, f"{group}.{key}"))
