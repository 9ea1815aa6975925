"""Changes of a policy file as people name them: text in, text out, everything else as its author wrote it.

An edit that is so already gives back the same text. One that takes away what is not there is refused, because the name is
probably mistyped. Whether the changed text is a policy is not judged here: it is put in force like any other text.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from doorward.errors import BadInput, NotFound
from doorward.policy.words import closest
from doorward.protocol import hujson_edit
from doorward.protocol.hujson import Array, HujsonError, Object, Value, parse, plain

Lists = Literal["groups", "tagOwners"]
Rules = Literal["grants", "acls", "ssh"]


@dataclass(frozen=True, slots=True)
class AddName:
    """Put a name into a list: a member into a group, an owner to a tag. A list that is missing is made."""

    section: Lists
    key: str  # "group:ops", "tag:web"
    name: str

    def __str__(self) -> str:
        return f"add {self.name} to {self.key}"


@dataclass(frozen=True, slots=True)
class RemoveName:
    """Take a name out of a list. The list stays, empty perhaps: other parts of the file name it."""

    section: Lists
    key: str
    name: str

    def __str__(self) -> str:
        return f"remove {self.name} from {self.key}"


@dataclass(frozen=True, slots=True)
class SetHost:
    """Give an address or a prefix a name, or (None) take the name away."""

    name: str
    address: str | None

    def __str__(self) -> str:
        return (
            f"remove host {self.name}" if self.address is None else f"set host {self.name} to {self.address}"
        )


@dataclass(frozen=True, slots=True)
class AddRule:
    """Put a rule at the end of its section."""

    section: Rules
    rule: dict[str, Any]

    def __str__(self) -> str:
        return f"add a rule to {self.section}"


@dataclass(frozen=True, slots=True)
class RemoveRule:
    """Take a rule away, by its number: the first is 0, as in ``grants[0]``."""

    section: Rules
    number: int

    def __str__(self) -> str:
        return f"remove {self.section}[{self.number}]"


Edit = AddName | RemoveName | SetHost | AddRule | RemoveRule


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text after these edits, one after the other.

    Raises BadInput for a text that is no HuJSON or has another shape than a policy, and NotFound for what should be taken
    away and is not there.
    """
    for edit in edits:
        try:
            text = _apply(text, edit)
        except HujsonError:
            raise
        except hujson_edit.EditError as error:
            raise BadInput(
                f"the policy has another shape than this change needs: {error}",
                cure="Edit the file: `doorward policy edit`.",
            ) from None
    return text


def _apply(text: str, edit: Edit) -> str:
    root = parse(text)
    match edit:
        case AddName(section, key, name):
            path = _path(root, section, key)
            if _same(name) in map(_same, _names(root, path)):
                return text
            return hujson_edit.append(text, path, name)
        case RemoveName(section, key, name):
            return _remove_name(text, _path(root, section, key), name)
        case SetHost(name, None):
            path = _path(root, "hosts", name)
            _require(name, _keys(_at(root, path[:1])), '"hosts"')
            return hujson_edit.remove(text, path)
        case SetHost(name, address):
            return hujson_edit.put(text, _path(root, "hosts", name), address)
        case AddRule(section, rule):
            return hujson_edit.append(text, _path(root, section), rule)
        case RemoveRule(section, number):
            found = _at(root, _path(root, section))
            count = len(found.elements) if isinstance(found, Array) else 0
            if not 0 <= number < count:
                raise NotFound(
                    f"there is no {section}[{number}]; the policy has {count} of them",
                    cure="Count from 0, as the answers of `doorward policy reach` do.",
                )
            return hujson_edit.remove(text, (*_path(root, section), number))


def _remove_name(text: str, path: list[str | int], name: str) -> str:
    root = parse(text)
    _require(str(path[1]), _keys(_at(root, path[:1])), f'"{path[0]}"')
    names = _names(root, path)
    _require(name, names, str(path[1]))
    for number in reversed(range(len(names))):
        if _same(names[number]) == _same(name):
            text = hujson_edit.remove(text, (*path, number))
    return text


def _require(name: str, known: Iterable[str], place: str) -> None:
    """Raise NotFound unless the name is known."""
    names = [one.strip() for one in known]
    if _same(name) not in map(_same, names):
        near = closest(name, names)
        cure = f'Did you mean "{near}"?' if near else "`doorward policy get` shows the policy."
        raise NotFound(f"{name} is not in {place}", cure=cure)


def _path(root: Value, *names: str) -> list[str | int]:
    """The way to a part as this file spells it: sections in any case, other names with blanks around them."""
    path: list[str | int] = []
    at: Value | None = root
    for depth, name in enumerate(names):
        spelled = name
        for known in _keys(at):
            if (known.lower() == name.lower()) if depth == 0 else (known.strip() == name.strip()):
                spelled = known
        path.append(spelled)
        at = _at(root, path)
    return path


def _keys(value: Value | None) -> list[str]:
    return [str(member.name.data) for member in value.members] if isinstance(value, Object) else []


def _at(root: Value, path: Iterable[str | int]) -> Value | None:
    value: Value | None = root
    for name in path:
        members = value.members if isinstance(value, Object) else ()
        value = next((member.value for member in members if member.name.data == name), None)
    return value


def _names(root: Value, path: Iterable[str | int]) -> list[str]:
    """What a list holds; things that are no names as empty ones, so that the numbers are right."""
    value = _at(root, path)
    held = plain(value) if isinstance(value, Array) else []
    return [one if isinstance(one, str) else "" for one in held]


def _same(name: str) -> str:
    return name.strip().lower()
