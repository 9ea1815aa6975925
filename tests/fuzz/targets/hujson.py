"""HuJSON: what parses is written back byte for byte; the rest is refused with a place."""

from typing import Any

from doorward.protocol import hujson
from doorward.protocol.hujson_edit import append, put, remove


def fuzz(data: bytes) -> None:
    """Parse ``data`` as text, as it came off a disk or a wire."""
    text = data.decode("utf-8", "surrogateescape")
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
    data = hujson.plain(value)
    _edit(text, value, data)


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
