"""Reads a syntax tree section by section and gathers complaints, so that one run reports all of them.

A `Reader` knows types and keys; a `Scope` adds the names that the file defines.

A reader never raises for what it reads: it notes a diagnostic and answers with nothing (until there are too many). ``null`` counts as absent, and
keys are known in any case, as in the hosted service.
"""

from collections.abc import Callable, Collection, Iterator
from typing import ParamSpec, TypeVar

from doorward.policy.document import Diagnostic, Kind, NamedDomain, Place, Selector, Text
from doorward.policy.selectors import Names, parse_selector
from doorward.policy.words import WordError, closest, did_you_mean
from doorward.protocol.hujson import Array, Lines, Literal, Member, Object, Value

_T = TypeVar("_T")
_P = ParamSpec("_P")

# Parts of the hosted service's language that are understood as such and refused: silence would promise what is not kept.
UNSUPPORTED = {"extraDNSRecords": "DNS records in the policy file"}

MAX_FAULTS = 200  # complaints about one file; a person mends a few at a time, and finding cures takes time


class TooManyFaults(Exception):  # noqa: N818 - not an error: the end of the reading
    """There are `MAX_FAULTS` complaints already."""


class Section:
    """One object of the file: its members under the names we know them by, and where each stands."""

    def __init__(self, members: dict[str, Value], place: Place, origin: str) -> None:
        self.members = members
        self.place = place
        self.origin = origin


class Reader:
    """Typed access to the tree of one file."""

    def __init__(self, text: str, filename: str) -> None:
        self.filename = filename
        self.diagnostics: list[Diagnostic] = []
        self._lines = Lines(text)

    def place(self, value: Value) -> Place:
        """Where a value starts."""
        return Place(*self._lines.locate(value.start))

    def complain(self, place: Place, message: str, cure: str = "") -> None:
        """Note what is wrong at ``place``."""
        self.diagnostics.append(Diagnostic(self.filename, place.line, place.column, message, cure))
        if len(self.diagnostics) >= MAX_FAULTS:
            raise TooManyFaults

    def attempt(
        self, place: Place, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T | None:
        """What ``function`` answers, or None after noting at ``place`` why it refused."""
        try:
            return function(*args, **kwargs)
        except WordError as refusal:
            self.complain(place, refusal.message, refusal.cure)
            return None

    def section(self, value: Value, origin: str, known: Collection[str]) -> Section:
        """An object with known keys; what is no object reads as an empty one."""
        place = self.place(value)
        members: dict[str, Value] = {}
        by_case = {one.lower(): one for one in (*known, *UNSUPPORTED)}
        for member in self._entries(value, origin):
            name = str(member.name.data)
            key = by_case.get(name.lower())
            if key is None:
                near = closest(name, known)
                cure = (
                    f'Did you mean "{near}"?'
                    if near
                    else f"Known are: {', '.join(sorted(known, key=str.lower))}."
                )
                self.complain(self.place(member.name), f'unknown key "{name}" in {origin}', cure)
            elif key in known:
                if key in members:
                    self.complain(
                        self.place(member.name), f'"{name}" occurs twice in {origin}', "Keep one of the two."
                    )
                members[key] = member.value
            elif not _is_empty(member.value):
                self.complain(
                    self.place(member.name),
                    f'"{name}" in {origin}: {UNSUPPORTED[key]} are not supported yet',
                    f'Remove "{name}".',
                )
        return Section(members, place, origin)

    def members(self, value: Value | None, origin: str) -> Iterator[tuple[str, Value]]:
        """The members of an object, those that are null left out."""
        return ((str(member.name.data), member.value) for member in self._entries(value, origin))

    def _entries(self, value: Value | None, origin: str) -> list[Member]:
        if value is None or is_null(value):
            return []
        if not isinstance(value, Object):
            self.complain(self.place(value), f"{origin} must be an object, not {_kind(value)}", "Write { }.")
            return []
        return [member for member in value.members if not is_null(member.value)]

    def items(self, value: Value | None, origin: str) -> Iterator[Value]:
        """The elements of an array."""
        if value is None or is_null(value):
            return
        if not isinstance(value, Array):
            self.complain(self.place(value), f"{origin} must be a list, not {_kind(value)}", "Write [ ].")
            return
        yield from (element.value for element in value.elements)

    def texts(self, value: Value | None, origin: str) -> Iterator[Text]:
        """The strings of an array, blanks around each removed."""
        for item in self.items(value, origin):
            text = self.text(item, f"an entry of {origin}")
            if text is not None:
                yield text

    def text(self, value: Value | None, origin: str) -> Text | None:
        """A string, blanks around it removed."""
        if value is None or is_null(value):
            return None
        if not isinstance(value, Literal) or not isinstance(value.data, str):
            self.complain(
                self.place(value),
                f"{origin} must be a string, not {_kind(value)}",
                "Put it between double quotes.",
            )
            return None
        return Text(value.data.strip(), self.place(value))

    def number(self, value: Value | None, origin: str) -> int | None:
        """A whole number."""
        if value is None or is_null(value):
            return None
        if not isinstance(value, Literal) or isinstance(value.data, bool) or not isinstance(value.data, int):
            self.complain(
                self.place(value),
                f"{origin} must be a whole number, not {_kind(value)}",
                "Write it without quotes.",
            )
            return None
        return value.data

    def flag(self, value: Value | None, origin: str) -> bool:
        """True or false; absent is false."""
        if value is None or is_null(value):
            return False
        if not isinstance(value, Literal) or not isinstance(value.data, bool):
            self.complain(
                self.place(value),
                f"{origin} must be true or false, not {_kind(value)}",
                "Write it without quotes.",
            )
            return False
        return value.data


class Scope:
    """One parse of one file."""

    def __init__(self, reader: Reader, names: Names) -> None:
        self.reader = reader
        self.names = names
        self.users: list[tuple[Selector, Place]] = []
        self.domains: list[NamedDomain] = []
        self.remarks: list[Diagnostic] = []
        self._known: dict[str, Selector] = {}
        self.default_postures: tuple[Selector, ...] = ()

    def remark(self, place: Place, message: str, cure: str) -> None:
        """Note what is allowed and yet probably not meant."""
        if len(self.remarks) < MAX_FAULTS:
            self.remarks.append(Diagnostic(self.reader.filename, place.line, place.column, message, cure))

    def selector(self, text: Text, *, role: str = "", section: str = "") -> Selector | None:
        """A name for nodes; users and domains are noted for later. None after a complaint.

        ``role`` is ``src=``, ``dst=`` or empty, ``section`` the section whose name the hosted service puts before complaints.
        """
        found = self._known.get(text.value)
        if found is None:
            found = self.reader.attempt(text.place, parse_selector, text.value, self.names, role=role)
        if found is not None:
            self._known[text.value] = (
                found  # one object for one word: equal ones are then found without comparing
            )
        if found is not None and (found.kind is Kind.USER or self._is_outside(found)):
            self.users.append((found, text.place))
        if found is not None and found.kind is Kind.DOMAIN:
            self.domains.append(NamedDomain(found.value, text.place, section))
        return found

    def _is_outside(self, selector: Selector) -> bool:
        """True for a group of an outside provider."""
        return selector.kind is Kind.GROUP and selector.value not in self.names.groups

    def selectors(
        self,
        value: Value | None,
        origin: str,
        *,
        role: str = "",
        section: str = "",
        check: Callable[[Selector], Selector] = lambda selector: selector,
    ) -> tuple[Selector, ...]:
        """A list of names, each passed through ``check``, which may refuse it."""
        found: list[Selector] = []
        for text in self.reader.texts(value, origin):
            selector = self.selector(text, role=role, section=section)
            if selector is not None:
                selector = self.reader.attempt(text.place, check, selector)
            if selector is not None:
                found.append(selector)
        return tuple(found)

    def postures(self, value: Value | None, origin: str) -> tuple[Selector, ...] | None:
        """Conditions on sources: names from "postures". None where nothing is said, which is not the same as ``[]``."""
        if value is None or is_null(value):
            return None
        found: list[Selector] = []
        for text in self.reader.texts(value, origin):
            if text.value not in self.names.postures:
                cure = did_you_mean(text.value, self.names.postures, f'Add "{text.value}" to "postures".')
                self.reader.complain(text.place, f'posture not found: "{text.value}"', cure)
                continue
            found.append(Selector(Kind.POSTURE, text.value, text=text.value))
        return tuple(found)

    def source_postures(self, value: Value | None, origin: str) -> tuple[Selector, ...]:
        """``srcPosture`` of a rule; without one, the file's ``defaultSrcPosture``."""
        found = self.postures(value, f'"srcPosture" in {origin}')
        return self.default_postures if found is None else found

    def entries(
        self, value: Value | None, origin: str, read: Callable[["Scope", Value, str], _T | None]
    ) -> tuple[_T, ...]:
        """Every entry of a list that ``read`` understands; it is given the entry and its name (``acls[0]``)."""
        items = enumerate(self.reader.items(value, origin))
        found = (read(self, item, f"{origin}[{index}]") for index, item in items)
        return tuple(one for one in found if one is not None)


def is_null(value: Value) -> bool:
    """True for ``null``, which counts as absent."""
    return isinstance(value, Literal) and value.data is None


def _is_empty(value: Value) -> bool:
    match value:
        case Literal():
            return value.data in (None, False, "")
        case Array():
            return not value.elements
        case Object():
            return not value.members


def _kind(value: Value) -> str:
    match value:
        case Array():
            return "a list"
        case Object():
            return "an object"
        case Literal(data=bool()):
            return "true or false"
        case Literal(data=str()):
            return "a string"
        case _:
            return "a number"
