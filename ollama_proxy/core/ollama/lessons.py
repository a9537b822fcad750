"""Keep lessons that the instances of one place taught, and no table or list has."""

import msgspec


class Lessons(msgspec.Struct):
    """Holds what was learnt.

    ``routes``: those outside of Ollama's table that an instance answered, as
    ``METHOD /path``. The rest is of models by full names, none of them in the list of
    models: ``woken``, for which an instance was woken that is not up yet; ``absent``,
    which are not there as long as the list is ``list_id``; ``served``, which were
    answered all the same. ``wakes``: when such names last caused launches, in epoch
    seconds.
    """

    routes: list[str] = []
    list_id: str = ""
    woken: list[str] = []
    absent: list[str] = []
    served: list[str] = []
    wakes: list[float] = []
