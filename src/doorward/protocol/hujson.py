"""HuJSON: JSON with comments and trailing commas, parsed into a tree that remembers every byte.

``parse`` answers with a `Value`: a `Literal`, an `Array` or an `Object`. Each value knows where it starts in the text
and keeps the blanks and comments around it, so ``dump(parse(text)) == text`` for every text that parses. ``plain``
turns a value into ordinary Python data.

Stricter than JSON parsers usually are, because what is parsed here decides who may reach what: a name that occurs twice
in an object, a number that no double holds, half a surrogate pair and unknown escapes are errors, never guesses.
Depth and size are limited, so that no text can exhaust the stack or the memory.
"""

import json
import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from doorward.errors import BadInput

MAX_DEPTH = 64  # a policy nests five deep; application capabilities may add some
MAX_SIZE = 1 << 20  # characters; a policy of 5,000 people with comments is a third of it
_MAX_NUMBER = 64  # characters; longer integers are slow to convert and no double holds them

_BLANKS = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(  # unrolled, so that a string without end costs one pass and no backtracking
    r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"'
)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_AFTER_NUMBER = re.compile(r"[A-Za-z0-9_.+-]")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


class HujsonError(BadInput):
    """The text is not HuJSON. ``place`` is ``line:column``, both counted from 1, columns in characters."""

    problem = "bad-hujson"

    def __init__(self, message: str, *, line: int, column: int, cure: str = "") -> None:
        super().__init__(message, cure=cure, place=f"{line}:{column}")
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, number, true, false or null. ``text`` is how it is written, ``data`` what it means."""

    before: str  # blanks and comments between the last token and this value
    after: str  # between this value and the comma, colon or bracket that follows
    start: int  # offset of the first character of the value itself
    text: str
    data: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Member:
    """One ``name: value`` of an object; ``comma`` tells whether one follows."""

    name: Literal
    value: "Value"
    comma: bool


@dataclass(frozen=True, slots=True)
class Element:
    """One value of an array; ``comma`` tells whether one follows."""

    value: "Value"
    comma: bool


@dataclass(frozen=True, slots=True)
class Object:
    """Members in the order of the text, no name twice. ``tail`` stands between the last comma and the brace."""

    before: str
    after: str
    start: int
    members: tuple[Member, ...]
    tail: str


@dataclass(frozen=True, slots=True)
class Array:
    """Elements in the order of the text. ``tail`` stands between the last comma and the bracket."""

    before: str
    after: str
    start: int
    elements: tuple[Element, ...]
    tail: str


Value = Literal | Array | Object


class Lines:
    """Turns offsets of one text into lines and columns, both from 1."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def locate(self, offset: int) -> tuple[int, int]:
        """Line and column of the character at ``offset``; the end of the text counts as a place too."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


def parse(text: str) -> Value:
    """Read one value and nothing else.

    Raises HujsonError, with line and column, for text that is not HuJSON, is longer than `MAX_SIZE` characters, nests
    deeper than `MAX_DEPTH`, or names a member twice.
    """
    if len(text) > MAX_SIZE:
        raise HujsonError(
            f"the text has {len(text)} characters; the limit is {MAX_SIZE}",
            line=1,
            column=1,
            cure="Split it, or shorten its comments.",
        )
    return _Parser(text).document()


def dump(value: Value) -> str:
    """The text that ``value`` was parsed from, byte for byte; for a part of a tree, that part with its comments."""
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts)


def plain(value: Value) -> Any:
    """The value as dict, list, str, int, float, bool or None."""
    match value:
        case Literal():
            return value.data
        case Array():
            return [plain(element.value) for element in value.elements]
        case Object():
            return {str(member.name.data): plain(member.value) for member in value.members}


def comments(trivia: str) -> list[str]:
    """The comments among blanks and comments (a ``before``, ``after`` or ``tail``), each with its slashes."""
    return _COMMENT.findall(trivia)


def _write(value: Value, parts: list[str]) -> None:
    parts.append(value.before)
    match value:
        case Literal():
            parts.append(value.text)
        case Array():
            parts.append("[")
            for element in value.elements:
                _write(element.value, parts)
                parts.append("," if element.comma else "")
            parts.extend((value.tail, "]"))
        case Object():
            parts.append("{")
            for member in value.members:
                _write(member.name, parts)
                parts.append(":")
                _write(member.value, parts)
                parts.append("," if member.comma else "")
            parts.extend((value.tail, "}"))
    parts.append(value.after)


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


class _Parser:
    """Recursive descent; the recursion is bounded by `MAX_DEPTH`, two frames a level."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, offset: int, message: str, cure: str = "") -> HujsonError:
        line, column = Lines(self.text).locate(offset)
        return HujsonError(message, line=line, column=column, cure=cure)

    def document(self) -> Value:
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise self.fail(error.start, "half a surrogate pair is not a character") from None
        value = self.value(0)
        if self.at < len(self.text):
            raise self.fail(
                self.at, f"{self.seen()} after the end of the value", "Remove what follows the last bracket."
            )
        return value

    def seen(self) -> str:
        """What stands here, for messages; never more than one character of the text."""
        return f'"{self.text[self.at]}"' if self.at < len(self.text) else "the end of the text"

    def trivia(self) -> str:
        """Read blanks and comments."""
        start = self.at
        while True:
            self.at = _skip(_BLANKS, self.text, self.at)
            if self.text.startswith("//", self.at):
                newline = self.text.find("\n", self.at)
                self.at = len(self.text) if newline < 0 else newline
            elif self.text.startswith("/*", self.at):
                end = self.text.find("*/", self.at + 2)
                if end < 0:
                    raise self.fail(
                        self.at, "a comment that starts here is never closed", 'Close it with "*/".'
                    )
                self.at = end + 2
            else:
                return self.text[start : self.at]

    def value(self, depth: int) -> Value:
        before = self.trivia()
        start = self.at
        mark = self.text[start : start + 1]
        if mark in {"{", "["}:
            if depth >= MAX_DEPTH:
                raise self.fail(start, f"nested deeper than {MAX_DEPTH} levels")
            self.at += 1
            if mark == "{":
                members, tail = self.members(depth + 1)
                return Object(before, self.trivia(), start, members, tail)
            elements, tail = self.elements(depth + 1)
            return Array(before, self.trivia(), start, elements, tail)
        data = self.string() if mark == '"' else self.bare()
        written = self.text[start : self.at]
        return Literal(before, self.trivia(), start, written, data)

    def string(self) -> str:
        match = _STRING.match(self.text, self.at)
        if match is None:
            raise self.string_error()
        decoded: str = json.loads(match.group())
        try:
            decoded.encode()
        except UnicodeEncodeError:
            raise self.fail(self.at, "a string holds half a surrogate pair") from None
        self.at = match.end()
        return decoded

    def string_error(self) -> HujsonError:
        start = self.at
        at = start + 1
        while at < len(self.text):
            character = self.text[at]
            if character == "\n":
                break
            if character < " ":
                return self.fail(
                    at, f"a string holds the control character U+{ord(character):04X}", "Write it as \\u...."
                )
            if character == "\\" and not _ESCAPE.match(self.text, at):
                return self.fail(at, "a backslash starts no known escape", "Write a backslash as two.")
            at += 2 if character == "\\" else 1
        return self.fail(start, "a string that starts here is never closed", "Close it with a double quote.")

    def bare(self) -> int | float | bool | None:
        """A number or a word."""
        word = _WORD.match(self.text, self.at)
        if word is not None:
            if word.group() not in _WORDS:
                raise self.fail(
                    self.at, f'"{word.group()[:40]}" is not a value', "Put text between double quotes."
                )
            self.at = word.end()
            return _WORDS[word.group()]
        number = _NUMBER.match(self.text, self.at)
        if number is None:
            raise self.fail(self.at, f"{self.seen()} where a value was expected")
        data = self.number(number.group())
        self.at = number.end()
        if _AFTER_NUMBER.match(self.text, self.at):
            raise self.fail(self.at, f"{self.seen()} inside a number")
        return data

    def number(self, text: str) -> int | float:
        if len(text) > _MAX_NUMBER:
            raise self.fail(self.at, f"a number of {len(text)} characters; the limit is {_MAX_NUMBER}")
        if text.lstrip("-").isdigit():
            return int(text)
        data = float(text)
        if not math.isfinite(data):
            raise self.fail(self.at, "a number too large for a double")
        return data

    def elements(self, depth: int) -> tuple[tuple[Element, ...], str]:
        elements: list[Element] = []
        while True:
            tail = self.closing("]")
            if tail is not None:
                return tuple(elements), tail
            value = self.value(depth)
            comma = self.comma("]", "array")
            elements.append(Element(value, comma))
            if not comma:
                self.at += 1
                return tuple(elements), ""

    def members(self, depth: int) -> tuple[tuple[Member, ...], str]:
        members: list[Member] = []
        names: dict[str, int] = {}
        while True:
            tail = self.closing("}")
            if tail is not None:
                return tuple(members), tail
            name = self.name(names)
            value = self.value(depth)
            comma = self.comma("}", "object")
            members.append(Member(name, value, comma))
            if not comma:
                self.at += 1
                return tuple(members), ""

    def name(self, names: dict[str, int]) -> Literal:
        before = self.trivia()
        start = self.at
        if not self.text.startswith('"', start):
            raise self.fail(
                start, f"{self.seen()} where a name was expected", "Put names between double quotes."
            )
        decoded = self.string()
        end = self.at
        if decoded in names:
            first, _ = Lines(self.text).locate(names[decoded])
            raise self.fail(
                start, f'"{decoded[:80]}" occurs twice; first in line {first}', "Keep one of the two."
            )
        names[decoded] = start
        after = self.trivia()
        if not self.text.startswith(":", self.at):
            raise self.fail(self.at, f"{self.seen()} where a colon was expected")
        self.at += 1
        return Literal(before, after, start, self.text[start:end], decoded)

    def closing(self, bracket: str) -> str | None:
        """The blanks before ``bracket`` if nothing else comes first, having read both; else nothing is read."""
        start = self.at
        tail = self.trivia()
        if self.text.startswith(bracket, self.at):
            self.at += 1
            return tail
        self.at = start
        return None

    def comma(self, bracket: str, what: str) -> bool:
        """True after reading a comma; False at ``bracket``, which is left."""
        if self.text.startswith(",", self.at):
            self.at += 1
            return True
        if self.text.startswith(bracket, self.at):
            return False
        cure = "A comma is missing before it." if self.at < len(self.text) else f'Close it with "{bracket}".'
        raise self.fail(self.at, f"{self.seen()} inside an {what}", cure)
