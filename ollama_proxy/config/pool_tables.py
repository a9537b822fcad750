"""Declare what stands in ``[pools.NAME]``, and in ``[offers.NAME]`` of every backend.

What else stands in the table of an offer are settings of its backend.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ollama_proxy.base.fields import Duration, Names, setting

_MOST_INSTANCES = 1000
_MOST_SLOTS = 10_000
_LETTERS = 3


def _currency(value: object) -> object:
    text = str(value).strip().upper()
    if text and not (len(text) == _LETTERS and text.isascii() and text.isalpha()):
        raise ValueError(f"{value!r} is not a currency; write EUR, CHF or USD")
    return text


def _refuse_truth(value: object) -> object:
    """Refuse ``true`` where a number is meant: it would count as 1."""
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a number")  # noqa: TRY004 - pydantic's
    return value


_Count = BeforeValidator(_refuse_truth)


class PoolTable(BaseModel):
    """Holds one pool as the file has it; lengths are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    models: Names = setting(
        "*",
        text="the models that it serves: names, with `*` for any letters and `?` for"
        " one; the first pool that one matches has it",
        shown="`*`",
    )
    offers: Names | None = setting(
        None,
        text="where its instances come from, in order of preference",
        shown="every offer, as in the file",
    )
    min_instances: Annotated[int, _Count, Field(ge=0, le=_MOST_INSTANCES)] = setting(
        0, text="how many are kept running, and paid for, even without work", shown="0"
    )
    max_instances: Annotated[int, _Count, Field(ge=1, le=_MOST_INSTANCES)] = setting(
        1, text="the most that run at once, however many requests wait", shown="1"
    )
    max_starting: Annotated[int, _Count, Field(ge=1, le=_MOST_INSTANCES)] = setting(
        2, text="the most that start at the same time", shown="2"
    )
    idle_timeout: Duration | None = setting(
        None,
        text="stop the last instance after this long without a request in flight",
        shown="`idle_timeout` of the proxy",
    )
    hold: Duration | None = setting(
        None,
        text="how long a request may wait for readiness before 503",
        shown="`hold` of the proxy",
    )
    keep_extra: Duration | None = setting(
        None,
        text="stop an instance that is not the last after this long without work",
        shown="as long as one takes to start",
    )
    impatience: Annotated[float, _Count, Field(ge=0, lt=1, allow_inf_nan=False)] = (
        setting(
            0.9,
            text="from 0.5, thrifty, to 0.9: how readily a wanted fraction of an"
            " instance is rounded up to one",
            shown="0.9",
        )
    )
    spill_after: Duration = setting(
        "10s",
        text="beside a server that is there anyway, up or not: start an instance only"
        " once a request has waited this long",
        shown="10s",
    )
    uploads: bool | None = setting(
        None,
        text="whether files for `create` go to an instance of it; one pool takes them",
        shown="of the first pool, true",
    )


class OfferTable(BaseModel):
    """Holds the settings of an offer of any backend."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    backend: str = setting(
        "",
        text="where its instances are: any value of `OLLAMA_PROXY_BACKEND`",
        shown="–",
    )
    slots: Annotated[int, _Count, Field(ge=1, le=_MOST_SLOTS)] | None = setting(
        None,
        text="how many requests to models an instance gets at a time; others wait",
        shown="see below",
    )
    price_per_hour: (
        Annotated[float, _Count, Field(ge=0, allow_inf_nan=False)] | None
    ) = setting(None, text="what an instance costs; unknown if not set", shown="–")
    currency: Annotated[str, BeforeValidator(_currency)] = setting(
        "", text="of that price: `EUR`, `CHF`, `USD`", shown="–"
    )
    env: dict[str, Any] = setting(
        dict,
        text="variables of Ollama on the instances that are made: a table",
        shown="–",
    )
