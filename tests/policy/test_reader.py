from doorward.policy.reader import Reader, Scope
from doorward.policy.selectors import Names, check_source
from doorward.protocol import hujson


def _reader(text: str) -> tuple[Reader, hujson.Value]:
    return Reader(text, "f"), hujson.parse(text)


def test_a_section_knows_its_keys_in_any_case_and_leaves_null_out() -> None:
    reader, value = _reader('{"SRC": 1, "dst": null, "extraDNSRecords": []}')
    section = reader.section(value, "grants[0]", ("src", "dst"))
    assert set(section.members) == {"src"}
    assert reader.diagnostics == []


def test_complaints_stand_where_the_fault_is_and_reading_goes_on() -> None:
    reader, value = _reader('{"a": 1,\n "b": ["x", 2, [], true],\n "c": "yes", "d": {}}')
    section = reader.section(value, "here", ("a", "b", "c"))
    assert reader.text(section.members["a"], "a") is None
    assert [text.value for text in reader.texts(section.members["b"], "b")] == ["x"]
    assert reader.flag(section.members["c"], "c") is False
    assert [str(one) for one in reader.diagnostics] == [
        'f:3:14: unknown key "d" in here',
        "f:1:7: a must be a string, not a number",
        "f:2:13: an entry of b must be a string, not a number",
        "f:2:16: an entry of b must be a string, not a list",
        "f:2:20: an entry of b must be a string, not true or false",
        "f:3:7: c must be true or false, not a string",
    ]
    assert all(one.cure for one in reader.diagnostics)


def test_strings_lose_the_blanks_around_them() -> None:
    reader, value = _reader('" tag:a "')
    text = reader.text(value, "x")
    assert text is not None
    assert text.value == "tag:a"
    assert (text.place.line, text.place.column) == (1, 1)


def test_a_scope_reads_names_and_remembers_users() -> None:
    reader, value = _reader('["alice", "tag:a", "tag:b", "autogroup:self"]')
    scope = Scope(reader, Names(frozenset(), frozenset(["tag:a"]), {}))
    found = scope.selectors(value, "src", role="src=", check=check_source)
    assert [one.text for one in found] == ["alice", "tag:a"]
    assert [one.text for one, _ in scope.users] == ["alice"]
    assert [one.message for one in reader.diagnostics] == [
        'src=tag not found: "tag:b"',
        '"autogroup:self" not valid on the src side of a rule',
    ]
