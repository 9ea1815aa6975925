"""Edits of HuJSON: they mean what was asked, and leave everything else as it was written."""

import copy
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.hujson import DATA, written_hujson

from doorward.protocol import hujson
from doorward.protocol.hujson import Array, Literal, Object, Value, dump, parse, plain
from doorward.protocol.hujson_edit import WIDTH, EditError, append, put, remove

CONTAINERS = st.one_of(
    st.dictionaries(st.text('abc"\\é', max_size=3), DATA, max_size=4), st.lists(DATA, max_size=4)
)


def children(value: Value) -> list[tuple[str | int, Value]]:
    if isinstance(value, Object):
        return [(str(member.name.data), member.value) for member in value.members]
    return [] if isinstance(value, Literal) else [(n, each.value) for n, each in enumerate(value.elements)]


def places(value: Value, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Value]]:
    """Every value in a tree, with the path to it."""
    yield path, value
    for name, child in children(value):
        yield from places(child, (*path, name))


def words(value: Value) -> list[str]:
    """All comments, in the order of the text."""
    found = hujson.comments(value.before)
    if isinstance(value, Object):
        for member in value.members:
            found += hujson.comments(member.name.before) + hujson.comments(member.name.after)
            found += words(member.value)
    elif isinstance(value, Array):
        for element in value.elements:
            found += words(element.value)
    if not isinstance(value, Literal):
        found += hujson.comments(value.tail)
    return [one.rstrip("\r") for one in found + hujson.comments(value.after)]


def core(value: Value) -> str:
    """The text of a value without the blanks and comments around it."""
    return dump(value)[len(value.before) : len(dump(value)) - len(value.after)]


def beside(value: Value, path: tuple[str | int, ...]) -> list[str]:
    """The texts of everything that a change at ``path`` is not about."""
    found: list[str] = []
    for step in path:
        found += [core(child) for name, child in children(value) if name != step]
        value = next((child for name, child in children(value) if name == step), Literal("", "", 0, "", None))
    return found


def changed(data: Any, path: tuple[str | int, ...], act: str, new: Any) -> Any:
    """The same change made to plain data."""
    data = copy.deepcopy(data)
    at = data
    for step in path[:-1] if act != "append" else path:
        at = at[step]
    if act == "append":
        at.append(new)
    elif act == "put":
        at[path[-1]] = new
    else:
        del at[path[-1]]
    return data


def is_subsequence(short: str, text: str) -> bool:
    rest = iter(text)
    return all(character in rest for character in short)


@settings(deadline=None, max_examples=150)
@given(CONTAINERS, DATA, st.randoms(use_true_random=False), st.data())
def test_an_edit_means_what_was_asked_and_keeps_the_rest(
    data: Any, new: Any, random: Random, pick: st.DataObject
) -> None:
    text = written_hujson(data, random)
    tree = parse(text)
    every = list(places(tree))
    path, value = pick.draw(st.sampled_from(every))
    acts = ["append"] if isinstance(value, Array) else ["put"] if isinstance(value, Object) else []
    if path:
        acts.append("remove")
        acts += ["put"] if isinstance(path[-1], str) else []
    if not acts:
        return
    act = pick.draw(st.sampled_from(acts))
    if act == "put" and isinstance(value, Object) and (not path or random.random() < 0.5):
        path = (*path, pick.draw(st.sampled_from(["a", "b", "new", 'q"'])))
    known = dict(every).get(path)
    if act == "append":
        edited = append(text, path, new)
    elif act == "put":
        edited = put(text, path, new)
    else:
        edited = remove(text, path)
    after = parse(edited)
    assert plain(after) == changed(data, path, act, new)
    if act == "append":
        assert is_subsequence(text, edited)  # nothing was taken away
        assert words(after) == words(tree)
        assert edited.startswith(text[: value.start + 1])
    elif act == "put" and known is None:
        assert is_subsequence(text, edited)
        assert words(after) == words(tree)
    elif act == "put":
        assert known is not None
        start, end = known.start, known.start + len(core(known))
        assert edited.startswith(text[:start])
        assert edited.endswith(text[end:])
    else:
        assert is_subsequence(edited, text)  # nothing was put in
    if act != "remove":
        there = beside(tree, path)
        assert beside(after, path)[: len(there)] == there or act == "append"


POLICY = """// Who may what.
{
  "groups": {
    "group:ops": ["ann", "bob"], // on call
    "group:web": [
      "cat", // since May
      // "dan" left
      "eve"
    ],
    "group:none": [],
  },

  /* the rules */
  "grants": [
    // ops everywhere
    {"src": ["group:ops"], "dst": ["*"], "ip": ["*"]}, // for now
    {
      "src": ["group:web"],
      "dst": ["tag:web"],
      "ip": ["443"],
    },
  ],
}
"""


def lines_changed(old: str, new: str) -> tuple[list[str], list[str]]:
    before, after = old.splitlines(), new.splitlines()
    return [one for one in before if one not in after], [one for one in after if one not in before]


@pytest.mark.parametrize(
    ("path", "data", "gone", "come"),
    [
        (
            ("groups", "group:ops"),
            "zoe",
            ['    "group:ops": ["ann", "bob"], // on call'],
            ['    "group:ops": ["ann", "bob", "zoe"], // on call'],
        ),
        (("groups", "group:web"), "zoe", ['      "eve"'], ['      "eve",', '      "zoe"']),
        (("groups", "group:none"), "zoe", ['    "group:none": [],'], ['    "group:none": ["zoe"],']),
        (("groups", "group:new"), "zoe", [], ['    "group:new": ["zoe"],']),
        (("grants",), {"src": ["a"], "dst": ["b"]}, [], ['    {"src": ["a"], "dst": ["b"]},']),
        (("ssh",), {"action": "accept"}, [], ['  "ssh": [', '    {"action": "accept"},', "  ],"][:2]),
        (("hosts", "x"), "1", [], ['  "hosts": {"x": ["1"]},']),
    ],
)
def test_what_is_added_looks_like_its_neighbours(
    path: tuple[str, ...], data: Any, gone: list[str], come: list[str]
) -> None:
    assert lines_changed(POLICY, append(POLICY, path, data)) == (gone, come)


@pytest.mark.parametrize(
    ("path", "gone", "come"),
    [
        (
            ("groups", "group:ops", 0),
            ['    "group:ops": ["ann", "bob"], // on call'],
            ['    "group:ops": ["bob"], // on call'],
        ),
        (
            ("groups", "group:ops", 1),
            ['    "group:ops": ["ann", "bob"], // on call'],
            ['    "group:ops": ["ann"], // on call'],
        ),
        (("groups", "group:web", 0), ['      "cat", // since May'], []),
        (
            ("groups", "group:web", 1),
            ['      "cat", // since May', '      "eve"'],
            ['      "cat" // since May'],
        ),
        (("groups", "group:ops"), ['    "group:ops": ["ann", "bob"], // on call'], []),
        (
            ("grants", 0),
            ['    {"src": ["group:ops"], "dst": ["*"], "ip": ["*"]}, // for now'],
            [],
        ),
        (
            ("grants", 1),
            [
                "    {",
                '      "src": ["group:web"],',
                '      "dst": ["tag:web"],',
                '      "ip": ["443"],',
                "    },",
            ],
            [],
        ),
    ],
)
def test_what_is_removed_takes_its_line_along(
    path: tuple[str | int, ...], gone: list[str], come: list[str]
) -> None:
    assert lines_changed(POLICY, remove(POLICY, path)) == (gone, come)


def test_wide_values_take_several_lines() -> None:
    rule = {"src": ["a" * 60], "dst": ["b" * 60], "ip": []}
    edited = append(POLICY, ("grants",), rule)
    assert (
        f'    {{\n      "src": ["{"a" * 60}"],\n      "dst": ["{"b" * 60}"],\n      "ip": [],\n    }},\n'
    ) in edited
    assert max(map(len, edited.splitlines())) <= WIDTH


def test_line_ends_are_those_of_the_file() -> None:
    text = POLICY.replace("\n", "\r\n")
    for edited in (
        append(text, ("grants",), {"src": []}),
        append(text, ("groups", "group:web"), "zoe"),
        put(text, ("ssh",), [{"a": 1}]),
        remove(text, ("groups", "group:web", 0)),
        remove(text, ("groups", "group:web", 1)),
        remove(text, ("grants", 1)),
    ):
        assert edited.replace("\r\n", "").count("\n") == 0
        assert "\r" not in edited.replace("\r\n", "")


def test_what_is_so_already_stays_as_it_is_written() -> None:
    text = '{"a": [ 1,\n 2 ], "b": 1e0}'
    assert put(text, ("a",), [1, 2]) == text
    assert put(text, ("a",), [1, True]) == '{"a": [1, true], "b": 1e0}'


def test_a_null_counts_as_missing() -> None:
    assert append('{"a": null}', ("a",), 1) == '{"a": [1]}'
    assert put('{"a": null}', ("a", "b"), 1) == '{"a": {"b": 1}}'


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("{}", '{"x": 1}'),
        ("{ }", '{ "x": 1 }'),
        ("{ /* none */ }", '{ /* none */ "x": 1 }'),
        ("{\n  // none\n}", '{\n  // none\n    "x": 1,\n}'),
        ('{"a": 0}', '{"a": 0, "x": 1}'),
        ('{"a": 0,}', '{"a": 0, "x": 1,}'),
        ('{ "a": 0 }', '{ "a": 0, "x": 1 }'),
        ('{"a": 0 // c\n}', '{"a": 0, // c\n"x": 1\n}'),
        ('{"a": 0\n// c\n}', '{"a": 0, "x": 1\n// c\n}'),
        ('{\n  "a": 0 /* c\n*/ }', '{\n  "a": 0,\n  "x": 1 /* c\n*/ }'),
        ('{\n  "a": 0, // c\n  // d\n}', '{\n  "a": 0, // c\n  "x": 1,\n  // d\n}'),
    ],
)
def test_where_a_new_member_goes(text: str, edited: str) -> None:
    assert put(text, ("x",), 1) == edited


def test_paths_that_lead_nowhere() -> None:
    acts: list[Callable[[], str]] = [
        lambda: remove(POLICY, ("groups", "group:x")),
        lambda: remove(POLICY, ("groups", "group:ops", 2)),
        lambda: remove(POLICY, ("groups", "group:ops", -1)),
        lambda: remove(POLICY, ("no", "where")),
        lambda: remove(POLICY, ("groups", 0)),
        lambda: remove(POLICY, ()),
        lambda: put(POLICY, ("grants", "x"), 1),
        lambda: append(POLICY, ("groups",), 1),
    ]
    for act in acts:
        with pytest.raises(EditError):
            act()
    with pytest.raises(hujson.HujsonError):
        put("{", ("a",), 1)
