"""HuJSON: what parses is written back byte for byte; the rest is refused with a place."""

from typing import Any

from tests.fuzz.feeding import argument_of

from doorward.protocol import hujson
from doorward.protocol.hujson_edit import append, put, remove

COVERS = (
    "protocol.hujson:parse",
    "protocol.hujson:comments",
    "protocol.hujson:Lines.__init__",
    "protocol.hujson:_skip",
    "protocol.hujson:_Parser.string",
    "protocol.hujson:_Parser.string_error",
    "protocol.hujson:_Parser.bare",
    "protocol.hujson:_Parser.number",
    "protocol.hujson_edit:append",
    "protocol.hujson_edit:put",
    "protocol.hujson_edit:remove",
    "protocol.hujson_edit:_behind_comments",
    "protocol.hujson_edit:_cut",
    "protocol.hujson_edit:_indent_at",
    "protocol.hujson_edit:_insert",
)
LIMIT = 1 << 20  # a policy in a request of the API
SEEDS = (
    b'// c\n{"a": [1, -2.5e3, true, null,], /* c */ "b": "\\u00e9\\n\\ud83d\\ude00", "b": {}, }\n',
    b'[[[[]]], {"": {"": 0}}, "\\\\", 1E+400, 123456789012345678901234567890]',
    b"[",
    b'{"a"',
    b"// only",
    b'{\n  // one\n  "a": 1, // of a\n  "b": [\n    2, /* x */ 3,\n  ],\n}\n',
    b"[1, 2 /* two */, // end\n]",
    b"nul",
    b'{"a\nb": "\\x"}',
    b"/* one */ // two\n{} // three",
)


def fuzz(data: bytes) -> None:
    """Parse ``data`` as text, as it came off a disk or a wire."""
    text = argument_of(data)
    value = None
    try:
        value = hujson.parse(text)
    except hujson.HujsonError as error:
        line, column = error.line, error.column
    if value is None:
        assert 1 <= line <= text.count("\n") + 1
        assert 1 <= column <= len(text) + 1
        return
    assert hujson.dump(value) == text
    plain = hujson.plain(value)
    assert all(comment.startswith("/") for comment in hujson.comments(value.before))
    if len(text) < 20_000:  # it parses the text anew some ten times
        _edit(text, value, plain)


def _edit(text: str, value: hujson.Value, data: Any) -> None:
    """What is put in is there, what is taken out is gone, and the rest means what it meant."""
    if isinstance(value, hujson.Object):
        edited = put(text, ("new",), 1)
        assert hujson.plain(hujson.parse(edited)) == data | {"new": 1}
        for name in list(data)[:3]:
            less = {key: each for key, each in data.items() if key != name}
            assert hujson.plain(hujson.parse(remove(text, (name,)))) == less
    elif isinstance(value, hujson.Array):
        assert hujson.plain(hujson.parse(append(text, (), 1))) == [*data, 1]
        for number in range(min(3, len(data))):
            less = data[:number] + data[number + 1 :]
            assert hujson.plain(hujson.parse(remove(text, (number,)))) == less
