"""Check names of backends' settings: half pairs, misspelt, refused and unused ones.

Pure, as `selection` is: values are neither validated nor shown.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ollama_proxy.base.fields import OWN_PREFIX, is_given, shown_name
from ollama_proxy.config.misspellings import misspelt_names
from ollama_proxy.config.selection import HUB, Groups, Selection, place_of, table_of


def check_names(
    selection: Selection,
    values: dict[str, Any],
    origin: Mapping[str, str],
    groups: Groups,
    variables: Mapping[str, Collection[str]],
    given: Collection[str],
) -> tuple[Selection, list[str]]:
    """Check the names of the selected backend; set those of the others aside.

    If no backend is named, any may be meant, so the names of all are checked; whether
    an offer lacks one half of a pair is checked where it is read.
    ``variables``: those that are read, by group. ``given``: those that are set. Removes
    the other backends from ``values``. Returns the selection with a notice on unused
    settings, and a sentence for each fault.
    """
    others = {name: groups[name] for name in groups if name not in selection.meant}
    checked = (
        {name: groups[name] for name in groups if name not in others}
        if selection.is_named
        else groups
    )
    faults = [] if selection.offered else list(half_pairs(values, origin, checked))
    for name in selection.meant:
        if name in groups:
            faults += _refused(groups[name].refused, given)
    unused = _set_aside(values, origin, others)
    foreign = {name for group in groups.values() for name in group.foreign}
    for name, meant, group in misspelt_names(given, variables, foreign):
        if group in groups and group not in checked:
            unused.setdefault(group, []).append(f"{name} ({meant}?)")
        elif not name.startswith(OWN_PREFIX):  # the loader reports those
            faults.append(f"{name}: unknown setting; did you mean {meant}?")
    return replace(selection, notice=_notice(selection, unused)), faults


def half_pairs(
    values: Mapping[str, Any], origin: Mapping[str, str], groups: Groups
) -> Iterator[str]:
    """Yield a sentence for each setting that lacks the ones that it needs."""
    for name, group in groups.items():
        table = table_of(values, name)
        for keys in group.pairs:
            there = [key for key in keys if is_given(table, key)]
            lacking = [key for key in keys if key not in there]
            if there and lacking:
                fields = group.model_fields
                names = ", ".join(
                    shown_name(f"{name}.{key}", fields[key]) for key in lacking
                )
                places = ", ".join(place_of(name, key, origin) for key in there)
                verb = "is" if len(lacking) == 1 else "are"
                yield (
                    f"{names}: {verb} not set, and {places} is; one needs the other:"
                    " set both, or neither"
                )


def _refused(refused: Mapping[str, str], given: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each variable that is set and can't be honoured."""
    for variable in sorted(given):
        for pattern, why in refused.items():
            beginning = pattern.removesuffix("*")
            if variable == pattern or (
                beginning != pattern and variable.startswith(beginning)
            ):
                yield f"{variable}: {why}"


def _set_aside(
    values: dict[str, Any], origin: Mapping[str, str], groups: Groups
) -> dict[str, list[str]]:
    """Remove the settings of some backends; return where each stood, by backend."""
    unused: dict[str, list[str]] = {}
    for name in groups:
        if name in values:
            table = values.pop(name)
            keys = list(table) if isinstance(table, Mapping) else [""]
            unused[name] = list(dict.fromkeys(place_of(name, k, origin) for k in keys))
    return unused


def _notice(selection: Selection, unused: Mapping[str, Sequence[str]]) -> str:
    """Return the sentence on settings of backends that are not used, or "".

    ``unused``: their names by backend; values are never shown.
    """
    if not unused:
        return ""
    names = ", ".join(name for given in unused.values() for name in given)
    if selection.offered:
        backends = " or ".join(repr(backend) for backend in unused)
        return (
            f"no offer has the backend {backends}, so these are not used: {names};"
            " to use them add an offer with it"
        )
    uses = " or ".join(f"OLLAMA_PROXY_BACKEND={backend}" for backend in unused)
    if selection.has_house and selection.backend == HUB:
        return (
            f"the hub is on and no other backend is named, so these are not used:"
            f" {names}; to use them when its nodes are full set {uses}"
        )
    return (
        f"the backend is {selection.backend!r}, so these are not used: {names};"
        f" to use them set {uses}"
    )
