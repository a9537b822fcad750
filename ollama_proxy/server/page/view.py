r"""Turn the body of ``/status`` into what the page shows: texts, in their order. Pure.

The template only puts them in their places. Control characters and those that change
the direction of writing are shown as ``\x1b``; markup is the template's part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from ollama_proxy.base.terminal_text import shown_values
from ollama_proxy.server.page.bar import Bar, bar_of
from ollama_proxy.server.page.nodes_view import NodesView, nodes_view
from ollama_proxy.server.page.notices import Notice, notices_of
from ollama_proxy.server.page.words import (
    STATE_WORDS,
    counted,
    length,
    price,
)

_HUB: Final = "hub"
"""The backend whose machines register themselves."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Tells whose key the page is shown to.

    ``key``: the name of the key, "" without one. ``has_session``: it can be ended.
    """

    key: str = ""
    has_session: bool = False
    is_admin: bool = False


@dataclass(frozen=True, slots=True)
class MachineView:
    """Holds a row of the table of machines."""

    name: str
    offer: str
    state: str
    state_words: str
    stage: str
    bar: Bar | None
    requests: str
    idle: str
    price: str
    url: str
    error: str


@dataclass(frozen=True, slots=True)
class PoolView:
    """Holds a pool: its figures, its machines, and why it has as many.

    ``served_by``: what serves it besides its machines, or how one comes to be.
    """

    name: str
    serves: str
    models: str
    figures: tuple[tuple[str, int], ...]
    machines: tuple[MachineView, ...]
    served_by: str
    offers: tuple[Notice, ...]
    plan: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PullView:
    """Holds a pull that is under way."""

    model: str
    status: str
    followers: str
    bar: Bar | None


@dataclass(frozen=True, slots=True)
class RequestView:
    """Holds a request in progress, and its sender."""

    sender: str
    agent: str
    route: str
    model: str
    pool: str
    state: str
    since: str


@dataclass(frozen=True, slots=True)
class PageView:
    """Holds the page.

    ``requests``: None if the viewer may not see them; ``nodes``: None without a hub.
    """

    title: str
    version: str
    backend: str
    viewer: Viewer
    needs_key: bool
    notices: tuple[Notice, ...]
    report: str
    pools: tuple[PoolView, ...]
    pulls: tuple[PullView, ...]
    requests: tuple[RequestView, ...] | None
    nodes: NodesView | None


def page_view(
    body: dict[str, Any],
    viewer: Viewer,
    nodes: Sequence[dict[str, Any]] | None = None,
) -> PageView:
    """Return the page for a body of ``/status``, with ``active`` or without it.

    ``nodes``: as ``GET /nodes`` lists them; None without a hub.
    """
    report = body["report"] or ""
    body = cast("dict[str, Any]", shown_values(body))
    notices = notices_of(body)
    told = {one.words for one in notices}
    active = body.get("active")
    return PageView(
        title=_title(body),
        version=body["version"],
        backend=body["backend"],
        viewer=viewer,
        needs_key=bool((body["access"] or {}).get("needs_key")),
        notices=notices,
        report=_lines(report),
        pools=tuple(_pool(pool, body, told) for pool in body["pools"]),
        pulls=tuple(_pull(one) for one in body["pulls"]),
        requests=None if active is None else tuple(map(_request, active)),
        nodes=None if nodes is None else nodes_view(nodes),
    )


def _title(body: dict[str, Any]) -> str:
    """Return what the tab of a browser tells: the state in a few words."""
    pools = body["pools"]
    if len(pools) == 1:
        return str(body["provisioning_status"])
    ready = sum(pool["ready"] for pool in pools)
    return f"{ready} ready"


def _lines(text: str) -> str:
    r"""Return a text of several lines, safe to show; their ends stay."""
    return "\n".join(
        str(line) for line in cast("list[str]", shown_values(text.splitlines()))
    )


def _pool(pool: dict[str, Any], body: dict[str, Any], told: set[str]) -> PoolView:
    offers = {one["name"]: one for one in pool["offers"]}
    instances = [one for one in pool["instances"] if "node_id" not in one]
    is_lone = len(body["pools"]) == len(instances) == 1
    known = (body["price"] or {}).get("per_hour") if is_lone else None
    return PoolView(
        name=pool["name"],
        serves=", ".join(pool["serves"]),
        models=", ".join(pool["models"]),
        figures=(
            ("waiting", pool["waiting"]),
            ("in flight", pool["in_flight"]),
            ("ready", pool["ready"]),
            ("wanted", pool["wanted"]),
        ),
        machines=tuple(
            _machine(one, offers.get(one["offer"], {}), known, told)
            for one in instances
        ),
        served_by=_served_by(pool, machines=len(instances)),
        offers=tuple(_offer(one) for one in pool["offers"] if one["state"] != "open"),
        plan=tuple(pool["plan"]),
    )


def _served_by(pool: dict[str, Any], *, machines: int) -> str:
    """Say what serves a pool, where the table of its machines does not."""
    nodes = len(pool["instances"]) - machines
    has_nodes_alone = all(one["backend"] == _HUB for one in pool["offers"])
    if nodes or has_nodes_alone:
        return (
            f"{counted(nodes, 'node of the hub serves', 'nodes of the hub serve')} it."
        )
    if machines:
        return ""
    return "No machine is up; a request that needs a model starts one."


def _machine(
    one: dict[str, Any],
    offer: dict[str, Any],
    known_price: float | None,
    told: set[str],
) -> MachineView:
    """Return a row; ``told``: sentences that stand above, not to be repeated."""
    per_hour = offer.get("price_per_hour")
    is_up = one["state"] in {"ready", "draining"}
    limit = "" if one["slots"] is None else f" of {one['slots']}"
    error = one["error"] or ""
    return MachineView(
        name=one["slot"],
        offer=_offer_words(one),
        state=one["state"],
        state_words=STATE_WORDS.get(one["state"], ""),
        stage=_stage(one),
        bar=bar_of(f"launch of {one['slot']}", one["progress"]),
        requests=f"{one['in_flight']}{limit}" if is_up else "",
        idle=_idle(one),
        price=price(
            known_price if per_hour is None else per_hour, offer.get("currency")
        ),
        url=one["url"] or "",
        error="" if error in told else error,
    )


def _offer_words(one: dict[str, Any]) -> str:
    offer, backend = one["offer"], one["backend"]
    return offer if offer == backend else f"{offer} ({backend})"


def _stage(one: dict[str, Any]) -> str:
    if not one["stage"]:
        return ""
    eta_s = one["eta_s"]
    left = "no estimate yet" if eta_s is None else f"about {length(eta_s)} left"
    stage = " ".join(word for word in (one["stage"], one["detail"]) if word)
    return f"{stage}, {left}"


def _idle(one: dict[str, Any]) -> str:
    if one["state"] != "ready":
        return ""
    if one["idle_for_s"] is None or one["in_flight"]:
        return "in use"
    idle = f"for {length(one['idle_for_s'])}"
    stops_in_s = one["stops_in_s"]
    if stops_in_s is None:
        return f"{idle}, stays"
    return f"{idle}, stops in {length(stops_in_s)}"


def _offer(offer: dict[str, Any]) -> Notice:
    ends_in_s = offer["ends_in_s"]
    ends = "" if ends_in_s is None else f" for {length(ends_in_s)}"
    state = "is off" if offer["state"] == "off" else "is passed over"
    return Notice(f"{offer['name']} {state}{ends}", offer["reason"] or "")


def _pull(one: dict[str, Any]) -> PullView:
    followers = counted(one["followers"], "client waits", "clients wait")
    bar = bar_of(f"pull of {one['model']}", one["progress"])
    return PullView(one["model"], one["status"], followers, bar)


def _request(one: dict[str, Any]) -> RequestView:
    return RequestView(
        sender=" at ".join(word for word in (one["key"], one["client"]) if word),
        agent=one["agent"],
        route=one["route"],
        model=one["model"] or "",
        pool=one["pool"],
        state=one["state"],
        since=length(one["since_s"]),
    )
