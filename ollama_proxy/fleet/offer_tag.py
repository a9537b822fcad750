"""Tell apart what several offers of one deployment have in one cloud.

They share the owner id, and each looks after its own instances alone: another one's
would fit no launch that it knows.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OfferTag:
    """Names the offer that a thing in a cloud is made for.

    - ``name``: the value of the tag; empty: things of this offer have none, as those of
      a deployment with one offer.
    - ``others``: the tags of the deployment's other offers.
    - ``takes_leftovers``: things of no present offer are this one's: one offer of each
      backend sees to what an offer left that is no more.
    """

    name: str = ""
    others: frozenset[str] = frozenset()
    takes_leftovers: bool = True

    def is_ours(self, tag: str | None) -> bool:
        """Tell whether a thing of our owner id, with this tag, belongs to the offer."""
        tag = tag or ""
        if tag == self.name:
            return True
        return self.takes_leftovers and tag not in self.others
