"""HuJSON: what parses is written back byte for byte; the rest is refused with a place."""

from doorward.protocol import hujson


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
    hujson.plain(value)
