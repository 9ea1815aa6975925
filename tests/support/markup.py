"""A page of HTML as a test sees it: strict about what our pages promise, and blind to how they look."""

import re
from html.parser import HTMLParser

_INLINE = frozenset({"bdi", "span", "code", "i", "em", "small", "time", "a"})
_VOID = frozenset({"meta", "link", "br", "input"})  # the elements without an end tag that our pages use


class Markup(HTMLParser):
    """Reads a page. Raises AssertionError for tags that do not match, handlers, and scripts and styles of its own."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.classes: set[str] = set()
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        """Everything a person can read: single spaces, also where one block ends and the next begins."""
        return re.sub(r"\s+", " ", "".join(self._text)).strip()

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of this kind."""
        return [attributes for name, attributes in self.tags if name == tag]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"style", "iframe"}
        attributes = {name: value or "" for name, value in attrs}
        assert tag != "script" or attributes.get("src", "").startswith("/_doorward/")
        assert tag != "form" or attributes.get("method") == "post"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        self.tags.append((tag, attributes))
        if tag not in _INLINE:
            self._text.append(" ")
        self.classes.update(attributes.get("class", "").split())

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> without its start"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self._text.append(data)
