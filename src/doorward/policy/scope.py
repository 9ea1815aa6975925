"""What the parsers of the sections share: the reader, the file's own names, and the users it mentions."""

from collections.abc import Callable
from typing import TypeVar

from doorward.policy.document import Kind, Place, Selector, Text
from doorward.policy.reader import Reader
from doorward.policy.selectors import Names, parse_selector
from doorward.protocol.hujson import Value

_T = TypeVar("_T")


class Scope:
    """One parse of one file."""

    def __init__(self, reader: Reader, names: Names) -> None:
        self.reader = reader
        self.names = names
        self.users: list[tuple[Selector, Place]] = []

    def selector(self, text: Text, *, role: str = "") -> Selector | None:
        """A name for nodes, users noted for later; None after a complaint. ``role`` is ``src=``, ``dst=`` or empty."""
        found = self.reader.attempt(text.place, parse_selector, text.value, self.names, role=role)
        if found is not None and found.kind is Kind.USER:
            self.users.append((found, text.place))
        return found

    def selectors(
        self,
        value: Value | None,
        origin: str,
        *,
        role: str = "",
        check: Callable[[Selector], Selector] = lambda selector: selector,
    ) -> tuple[Selector, ...]:
        """A list of names, each passed through ``check``, which may refuse it."""
        found: list[Selector] = []
        for text in self.reader.texts(value, origin):
            selector = self.selector(text, role=role)
            if selector is not None:
                selector = self.reader.attempt(text.place, check, selector)
            if selector is not None:
                found.append(selector)
        return tuple(found)

    def entries(
        self, value: Value | None, origin: str, read: Callable[[Value, str], _T | None]
    ) -> tuple[_T, ...]:
        """Every entry of a list that ``read`` understands; it is given the entry and its name (``acls[0]``)."""
        found = (
            read(item, f"{origin}[{index}]") for index, item in enumerate(self.reader.items(value, origin))
        )
        return tuple(one for one in found if one is not None)
