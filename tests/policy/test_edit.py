"""Edits by their names: each does what it says to the meaning of the file, and to nothing else of its text."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.errors import BadInput, NotFound
from doorward.policy import parse_policy
from doorward.policy.edit import AddName, AddRule, Edit, RemoveName, RemoveRule, SetHost, apply
from doorward.policy.textdiff import count_changes
from doorward.protocol.hujson import parse, plain

POLICY = """// ours
{
    "Groups": {
        "group:ops": ["Ann", "bob"], // on call
        " group:web ": [
            "cat",
        ],
    },
    "tagOwners": {"tag:web": ["group:ops"]},
    "hosts": {"office": "192.168.1.0/24"},
    "grants": [
        // everything, for now
        {"src": ["group:ops"], "dst": ["*"], "ip": ["*"]},
    ],
}
"""


def meaning(text: str) -> Any:
    return plain(parse(text))


@pytest.mark.parametrize(
    ("edit", "path", "value"),
    [
        (AddName("groups", "group:ops", "zoe"), ("Groups", "group:ops"), ["Ann", "bob", "zoe"]),
        (AddName("groups", "group:web", "zoe"), ("Groups", " group:web "), ["cat", "zoe"]),
        (AddName("groups", "group:new", "zoe"), ("Groups", "group:new"), ["zoe"]),
        (AddName("tagOwners", "tag:web", "zoe"), ("tagOwners", "tag:web"), ["group:ops", "zoe"]),
        (AddName("tagOwners", "tag:db", "zoe"), ("tagOwners", "tag:db"), ["zoe"]),
        (RemoveName("groups", "group:ops", "ann"), ("Groups", "group:ops"), ["bob"]),
        (RemoveName("groups", "group:web", "cat"), ("Groups", " group:web "), []),
        (SetHost("office", "192.168.2.0/24"), ("hosts", "office"), "192.168.2.0/24"),
        (SetHost("home", "10.0.0.1"), ("hosts", "home"), "10.0.0.1"),
        (
            AddRule("grants", {"src": ["cat"], "dst": ["*"], "ip": ["22"]}),
            ("grants", 1),
            {"src": ["cat"], "dst": ["*"], "ip": ["22"]},
        ),
        (AddRule("ssh", {"action": "accept"}), ("ssh", 0), {"action": "accept"}),
        (RemoveRule("grants", 0), ("grants",), []),
    ],
    ids=str,
)
def test_an_edit_does_what_it_says_in_one_place(edit: Edit, path: tuple[str | int, ...], value: Any) -> None:
    edited = apply(POLICY, [edit])
    expected = meaning(POLICY)
    at = expected
    for step in path[:-1]:
        at = at.setdefault(step, []) if isinstance(at, dict) else at[step]
    if isinstance(at, list) and path[-1] == len(at):
        at.append(value)
    else:
        at[path[-1]] = value
    assert meaning(edited) == expected
    added, removed = count_changes(POLICY, edited)
    assert added <= 3
    assert removed <= 1


def test_taking_a_name_away() -> None:
    assert "office" not in meaning(apply(POLICY, [SetHost("office", None)]))["hosts"]
    assert "// on call" in apply(POLICY, [RemoveName("groups", "group:ops", "bob")])


@pytest.mark.parametrize(
    "edit",
    [
        AddName("groups", "group:ops", "ANN"),
        AddName("tagOwners", "tag:web", " group:ops"),
        SetHost("office", "192.168.1.0/24"),
    ],
    ids=str,
)
def test_what_is_so_already_gives_back_the_same_text(edit: Edit) -> None:
    assert apply(POLICY, [edit]) == POLICY


@pytest.mark.parametrize(
    ("edit", "words", "cure"),
    [
        (RemoveName("groups", "group:opz", "ann"), 'group:opz is not in "Groups"', 'mean "group:ops"?'),
        (RemoveName("groups", "group:ops", "bib"), "bib is not in group:ops", 'Did you mean "bob"?'),
        (RemoveName("tagOwners", "tag:x", "bob"), 'tag:x is not in "tagOwners"', "policy get"),
        (SetHost("ofice", None), 'ofice is not in "hosts"', 'Did you mean "office"?'),
        (RemoveRule("grants", 1), r"no grants\[1\]; the policy has 1", "Count from 0"),
        (RemoveRule("acls", 0), r"no acls\[0\]; the policy has 0", "Count from 0"),
        (RemoveRule("grants", -1), r"no grants\[-1\]", "Count from 0"),
    ],
    ids=str,
)
def test_what_is_not_there_cannot_be_taken_away(edit: Edit, words: str, cure: str) -> None:
    with pytest.raises(NotFound, match=words) as caught:
        apply(POLICY, [edit])
    assert cure in caught.value.cure


@pytest.mark.parametrize("text", ['{"groups": []}', '{"groups": {"group:ops": "ann"}}', "[]", "{"])
def test_a_text_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        apply(text, [AddName("groups", "group:ops", "ann")])


NAMES = st.sampled_from(["ann", "bob", "cat", "zoe@example.com"])
EDITS = st.one_of(
    st.builds(AddName, st.just("groups"), st.sampled_from(["group:ops", "group:web", "group:new"]), NAMES),
    st.builds(RemoveName, st.just("groups"), st.sampled_from(["group:ops", "group:web"]), NAMES),
    st.builds(AddName, st.just("tagOwners"), st.sampled_from(["tag:web", "tag:db"]), NAMES),
    st.builds(
        SetHost, st.sampled_from(["office", "home"]), st.sampled_from(["10.0.0.1", "10.1.0.0/16", None])
    ),
    st.builds(
        AddRule,
        st.just("grants"),
        st.fixed_dictionaries({"src": st.lists(NAMES), "dst": st.just(["*"]), "ip": st.just(["22"])}),
    ),
    st.builds(RemoveRule, st.just("grants"), st.integers(0, 2)),
)


@settings(deadline=None)
@given(st.lists(EDITS, max_size=8))
def test_after_any_edits_it_is_still_a_policy_with_its_comments(edits: list[Edit]) -> None:
    text = POLICY
    for edit in edits:
        try:
            text = apply(text, [edit])
        except NotFound:
            continue
    parse_policy(text)
    assert text.startswith("// ours\n{\n")
    assert "// everything, for now" in text
    assert "// on call" in text
