"""Describe the work that a request asks for, as far as a key's limits depend on it."""

from typing import NamedTuple

from ollama_proxy.core.access.route_classes import RouteClass


class Work(NamedTuple):
    """Holds what one request asks for; token figures are estimates.

    - ``model``: its model as the client wrote it; "" if it names none.
    - ``output_tokens``: the most that one answer may have; None: the request sets no
      limit, so the length of the model's usual answers counts.
    - ``answers``: how many answers it asks for.
    """

    route_class: RouteClass
    model: str = ""
    prompt_tokens: int = 0
    output_tokens: int | None = 0
    answers: int = 1
