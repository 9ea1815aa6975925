"""Changes of a HuJSON text that leave everything else as its author wrote it: comments, layout, commas, line ends.

Each function takes a text and answers with the changed one. A change is a few splices: pieces of the text that are put in or
cut out. What lies outside of them is not even looked at, so it stays byte for byte.

How it looks: a new member or element goes after the last one, in its style: on a line of its own if that one has one, with a
comma after it if that one has one. What is removed takes along its line, and a comment at the end of that line; comments on
lines of their own stay, because only their author knows what they are about.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from doorward.protocol.hujson import Array, Literal, Member, Object, Value, dump, parse, plain

Path = Sequence[str | int]  # names of members and numbers of elements, from the outermost inwards

WIDTH = 110  # columns; a new value that would be wider is written over several lines

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_REST_OF_LINE = re.compile(r"(?:[ \t\r]|/\*(?:(?!\*/)[^\n])*\*/)*(?://[^\n]*)?(?=\n)")
_COMMENTS_BESIDE = re.compile(r"(?:[ \t]*/\*(?:(?!\*/)[^\n])*\*/)*")
_INDENT = re.compile(r"[ \t]*")


class EditError(LookupError):
    """The path does not lead to what the change is about: a mistake of the calling program, not of the text."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One member or element, by offsets."""

    lead: int  # where the blanks and comments before it start
    start: int  # of its name or value
    end: int  # behind its value
    comma: int | None  # where the comma after it is

    @property
    def over(self) -> int:
        """Behind it and its comma."""
        return self.end if self.comma is None else self.comma + 1


@dataclass(frozen=True, slots=True)
class _Inside:
    """What an array or an object holds, by offsets."""

    items: tuple[_Item, ...]
    close: int  # of the closing bracket


def put(text: str, path: Path, data: Any) -> str:
    """Set the member, or the element that is there, at ``path`` to ``data``.

    Objects that are missing on the way are made, and nulls count as missing. What means ``data`` already stays as it is
    written. Raises HujsonError for a text that is none, and EditError where the path cannot be made.
    """
    root = value = parse(text)
    style = _Style(text, root)
    for depth, name in enumerate(path):
        child = _child(value, name)
        rest = _nested(path[depth + 1 :], data)
        if child is None:
            if not isinstance(value, Object) or not isinstance(name, str):
                raise EditError(f"there is no object at {list(path[:depth])}")
            return _insert(text, value, rest, style, name=name)
        if depth + 1 == len(path) or _is_null(child):
            return _replace(text, child, rest, style)
        value = child
    return _replace(text, value, data, style)


def append(text: str, path: Path, data: Any) -> str:
    """Add ``data`` at the end of the array at ``path``; one that is missing, or null, is made. Raises like `put`."""
    root = parse(text)
    value: Value | None = root
    for name in path:
        value = None if value is None else _child(value, name)
    if value is None or _is_null(value):
        return put(text, path, [data])
    if not isinstance(value, Array):
        raise EditError(f"there is no list at {list(path)}")
    return _insert(text, value, data, _Style(text, root))


def remove(text: str, path: Path) -> str:
    """Cut out the member or element at ``path``. Raises EditError where there is none."""
    value = parse(text)
    for name in path[:-1]:
        found = _child(value, name)
        if found is None:
            raise EditError(f"there is nothing at {list(path)}")
        value = found
    number = _number(value, path[-1]) if path else None
    if number is None:
        raise EditError(f"there is nothing at {list(path)}")
    assert not isinstance(value, Literal)  # a literal has no children
    return _cut(text, _inside(value), number)


# -- finding the way


def _is_null(value: Value) -> bool:
    return isinstance(value, Literal) and value.data is None


def _child(value: Value, name: str | int) -> Value | None:
    number = _number(value, name)
    if number is None:
        return None
    return value.members[number].value if isinstance(value, Object) else value.elements[number].value  # type: ignore[union-attr]


def _number(value: Value, name: str | int) -> int | None:
    """Which of the things in ``value`` a step of a path means."""
    if isinstance(value, Object) and isinstance(name, str):
        return next((index for index, member in enumerate(value.members) if member.name.data == name), None)
    if isinstance(value, Array) and isinstance(name, int) and 0 <= name < len(value.elements):
        return name
    return None


def _nested(names: Path, data: Any) -> Any:
    for name in reversed(names):
        data = {str(name): data}
    return data


# -- where things stand


def _end(value: Value) -> int:
    """Behind the value itself."""
    return value.start + len(dump(value)) - len(value.before) - len(value.after)


def _inside(value: Array | Object) -> _Inside:
    items: list[_Item] = []
    at = value.start + 1
    for part in value.members if isinstance(value, Object) else value.elements:
        first = part.name if isinstance(part, Member) else part.value
        end = _end(part.value)
        comma = end + len(part.value.after) if part.comma else None
        items.append(_Item(at, first.start, end, comma))
        at = items[-1].over
    return _Inside(tuple(items), _end(value) - 1)


def _behind_comments(text: str, start: int, end: int) -> int:
    """Behind the last comment between two offsets, or the first of them."""
    last = start
    for found in _COMMENT.finditer(text, start, end):
        last = found.end()
    return last


def _indent_at(text: str, offset: int) -> str:
    """The blanks that the line of an offset starts with."""
    match = _INDENT.match(text, text.rfind("\n", 0, offset) + 1)
    return "" if match is None else match.group()


def _step(root: Value) -> str:
    """By how much this file indents."""
    if isinstance(root, Object) and root.members:
        last_line = root.members[0].name.before.rpartition("\n")
        if last_line[1] and last_line[2] and not last_line[2].strip():
            return last_line[2]
    return "    "


def _spliced(text: str, *splices: tuple[int, int, str]) -> str:
    """The text with each [start, end) replaced."""
    for start, end, new in sorted(splices, reverse=True):
        text = text[:start] + new + text[end:]
    return text


# -- the changes


def _replace(text: str, value: Value, data: Any, style: "_Style") -> str:
    if json.dumps(plain(value), sort_keys=True) == json.dumps(data, sort_keys=True, allow_nan=False):
        return text
    return _spliced(text, (value.start, _end(value), style.write(data, _indent_at(text, value.start))))


def _insert(
    text: str, container: Array | Object, data: Any, style: "_Style", *, name: str | None = None
) -> str:
    inside = _inside(container)
    label = "" if name is None else _written(name) + ": "
    if not inside.items:
        return _insert_first(text, (container.start + 1, inside.close), label, data, style)
    last = inside.items[-1]
    indent = _indent_at(text, last.start)
    rest = _REST_OF_LINE.match(text, last.over, inside.close)
    own_line = "\n" in text[last.lead : last.start]
    if rest is not None and (own_line or "//" in rest.group()):
        # On a line of its own, behind what the line before ends with.
        place = rest.end() - text.endswith("\r", last.over, rest.end())
        gap = style.line_end + indent
    else:
        beside = _COMMENTS_BESIDE.match(text, last.over, inside.close)
        place = last.over if beside is None else beside.end()
        gap = style.line_end + indent if own_line else " "
    new = gap + label + style.write(data, indent, used=len(label))
    if last.comma is not None:
        return _spliced(text, (place, place, new + ","))
    if place == last.end:
        return _spliced(text, (place, place, "," + new))
    return _spliced(text, (last.end, last.end, ","), (place, place, new))


def _insert_first(text: str, between: tuple[int, int], label: str, data: Any, style: "_Style") -> str:
    """Put something between brackets that hold nothing, or only comments."""
    start, close = between
    place = _behind_comments(text, start, close)
    blanks = text[place:close]
    if "\n" in text[start:close]:
        indent = _indent_at(text, start - 1) + style.step
        comma = "," if style.trailing else ""
        new = label + style.write(data, indent, used=len(label)) + comma
        return _spliced(text, (place, place, style.line_end + indent + new))
    indent = _indent_at(text, start)
    gap = " " if place > start else blanks
    return _spliced(text, (place, place, gap + label + style.write(data, indent, used=len(label))))


def _cut(text: str, inside: _Inside, number: int) -> str:
    item = inside.items[number]
    is_last = number == len(inside.items) - 1
    splices: list[tuple[int, int, str]] = []
    if is_last and item.comma is None and number:
        comma = inside.items[number - 1].comma
        assert comma is not None  # something follows it
        splices.append((comma, comma + 1, ""))
    blanks = _behind_comments(text, item.lead, item.start)
    line = text.rfind("\n", blanks, item.start)
    rest = _REST_OF_LINE.match(text, item.over, inside.close) if line >= 0 else None
    if rest is not None:
        splices.append((line, rest.end(), ""))
    elif is_last:
        splices.append((blanks if line < 0 else item.start, item.over, ""))
    else:
        gap = _INDENT.match(text, item.over)
        assert gap is not None  # it matches the empty string
        splices.append((item.start, gap.end(), ""))
    return _spliced(text, *splices)


# -- new text


def _written(data: Any) -> str:
    """JSON on one line, in the style people write it. Raises ValueError for what is no JSON."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


class _Style:
    """How a file is written, as far as new parts of it should be alike."""

    def __init__(self, text: str, root: Value) -> None:
        self.line_end = "\r\n" if "\r\n" in text else "\n"
        self.step = _step(root)
        self.trailing = isinstance(root, Object) and (not root.members or root.members[-1].comma)

    def write(self, data: Any, indent: str, *, used: int = 0) -> str:
        """``data`` as text: on one line if it is short, else over several, the first of which starts at ``indent``."""
        flat = _written(data)
        listed = isinstance(data, list) and any(isinstance(one, dict) for one in data)
        if not isinstance(data, dict | list) or not data:
            return flat
        if len(indent) + used + len(flat) <= WIDTH and not listed:
            return flat
        inner = indent + self.step
        lines = list(self._parts(data, inner))
        commas = ["," for _ in lines]
        if not self.trailing:
            commas[-1] = ""
        opening, closing = "{}" if isinstance(data, dict) else "[]"
        body = "".join(
            f"{self.line_end}{inner}{line}{comma}" for line, comma in zip(lines, commas, strict=True)
        )
        return f"{opening}{body}{self.line_end}{indent}{closing}"

    def _parts(self, data: dict[str, Any] | list[Any], indent: str) -> Iterator[str]:
        if isinstance(data, dict):
            for name, value in data.items():
                label = _written(name) + ": "
                yield label + self.write(value, indent, used=len(label))
        else:
            for value in data:
                yield self.write(value, indent)
