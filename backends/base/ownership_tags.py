"""Tag things of ours in a cloud: owner, launch, and until when they are wanted.

Clouds call tags labels or metadata, and allow different characters in keys and values.
So each cloud defines its spelling, and everything else is here. Pure.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar

from ollama_proxy.core.lifecycle.record import LaunchId
from ollama_proxy.fleet.offer_tag import OfferTag


@dataclass(frozen=True, slots=True)
class TagFormat:
    """Says how our tags are spelt in one cloud.

    ``manager``: the key and value that mark a thing as made by this product.
    ``prefix``: before every other key. ``owner_letter``, ``lease_letter``: before these
    values, if a value has to begin with a letter.
    """

    manager: tuple[str, str]
    prefix: str = ""
    owner_letter: str = ""
    lease_letter: str = ""

    @property
    def _letters(self) -> dict[str, str]:
        owner = self.owner_letter
        return {"owner": owner, "offer": owner, "lease": self.lease_letter}

    def spelt(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return tags as the cloud has them."""
        letters = self._letters
        return {
            self.prefix + name: letters.get(name, "") + value
            for name, value in tags.items()
        }

    def read(self, labels: Mapping[str, object], name: str) -> str | None:
        """Return a tag of what the cloud has; None if there is none of that name."""
        letters = self._letters
        value = labels.get(self.prefix + name)
        if not isinstance(value, str):
            return None
        return value.removeprefix(letters.get(name, ""))


class Tagged:
    """Reads our tags of a thing; beneath a struct of what the cloud shows.

    Not an `abc.ABC`: msgspec's structs don't take its metaclass. So mypy alone sees to
    it that a struct has what is abstract here.
    """

    __slots__ = ()
    tag_format: ClassVar[TagFormat]
    id: str

    @property
    @abstractmethod
    def raw_tags(self) -> Mapping[str, object]:
        """Return its tags as the cloud shows them, ours or not."""

    def tag(self, name: str) -> str | None:
        """Return one of our tags."""
        return self.tag_format.read(self.raw_tags, name)

    @property
    def is_made_by_us(self) -> bool:
        """Tell whether any deployment of this product made it."""
        key, value = self.tag_format.manager
        return self.raw_tags.get(key) == value

    @property
    def launch(self) -> LaunchId:
        """Return the launch that one of ours belongs to."""
        return LaunchId(self.tag("launch") or f"untagged-{self.id}")

    @property
    def lease_end(self) -> float:
        """Return the end of its lease in epoch seconds; 0 if it has none."""
        text = self.tag("lease") or ""
        return float(text) if text.isdecimal() else 0.0


class OwnershipTags:
    """Writes the tags of one owner, ``owner_id``, and of one of its offers."""

    def __init__(
        self, owner_id: str, tag_format: TagFormat, offer: OfferTag | None = None
    ) -> None:
        self.owner_id = owner_id
        self.offer = offer or OfferTag()
        self._format = tag_format

    def of(
        self,
        launch_id: LaunchId,
        *,
        lease_end: float,
        spec: str,
        identity: str | None = None,
    ) -> dict[str, str]:
        """Return the tags of a new thing, as the cloud spells them.

        ``spec``: differs between things made by different settings. ``identity``: the
        launch whose token its guard expects, if that must be remembered.
        """
        tags = {"owner": self.owner_id, "launch": str(launch_id)}
        tags |= {"lease": f"{lease_end:.0f}", "spec": spec}
        tags |= {"identity": identity} if identity else {}
        tags |= {"offer": self.offer.name} if self.offer.name else {}
        key, value = self._format.manager
        return {key: value, **self._format.spelt(tags)}

    def is_ours(self, thing: Tagged) -> bool:
        """Tell whether this deployment made it, for this offer."""
        is_owned = thing.is_made_by_us and thing.tag("owner") == self.owner_id
        return is_owned and self.offer.is_ours(thing.tag("offer"))


class _Dated(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def created_at(self) -> str: ...


_Thing = TypeVar("_Thing", bound=_Dated)


def oldest_first(things: Sequence[_Thing]) -> list[_Thing]:
    """Return things in the order in which they were made."""
    return sorted(things, key=lambda one: (one.created_at, one.id))
