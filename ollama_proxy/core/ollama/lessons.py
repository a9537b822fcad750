"""Keep lessons that the instances of one place taught, and no table or list has."""

import msgspec


class Lessons(msgspec.Struct):
    """Holds facts learnt from responses of instances.

    - ``routes``: routes outside of Ollama's table that an instance served, as ``METHOD
      /path``.
    - ``list_id``: the list of models that ``absent`` refers to.
    - ``woken``: full names of unlisted models for which an instance was woken that is
      not ready yet.
    - ``absent``: those that do not exist, as long as the list is ``list_id``.
    - ``served``: those that were served although they are not listed.
    - ``wakes``: when such names last caused launches, in epoch seconds.
    """

    routes: list[str] = []
    list_id: str = ""
    woken: list[str] = []
    absent: list[str] = []
    served: list[str] = []
    wakes: list[float] = []
