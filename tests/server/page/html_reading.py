"""Read a page of ours strictly: every element that opens is closed, in its order."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"meta", "link", "input", "br"})


@dataclass(slots=True)
class Element:
    """An element, with the text that stands in it and below."""

    name: str
    attributes: dict[str, str]
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self.parts).split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Element] = []
        self.open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.found.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open[-1].name == tag, (self.open[-1].name, tag)
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.parts.append(data)


class Page:
    """The elements of a page."""

    def __init__(self, html: str) -> None:
        reader = _Reader()
        reader.feed(html)
        reader.close()
        assert reader.open == [], [one.name for one in reader.open]
        self.elements = reader.found

    def all(self, name: str, **attributes: str) -> list[Element]:
        wanted = {one.replace("_", "-"): value for one, value in attributes.items()}
        return [
            one
            for one in self.elements
            if one.name == name and wanted.items() <= one.attributes.items()
        ]

    def one(self, name: str, **attributes: str) -> Element:
        (found,) = self.all(name, **attributes)
        return found

    @property
    def text(self) -> str:
        return self.one("body").text
