import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.targets import hujson as fuzz_target
from tests.support.hujson import DATA, written_hujson

from doorward.protocol import hujson


@settings(deadline=None)  # the machine may be busy
@given(DATA, st.randoms(use_true_random=False))
def test_means_the_data_and_writes_back_every_byte(data: object, random: Random) -> None:
    text = written_hujson(data, random)
    value = hujson.parse(text)
    assert hujson.plain(value) == data
    assert hujson.dump(value) == text


@settings(deadline=None)  # the machine may be busy
@given(st.text('{}[],:"\\/*ntu01e-. \n', max_size=40))
def test_any_text_parses_and_writes_back_or_is_refused_in_its_place(text: str) -> None:
    fuzz_target.fuzz(text.encode())


@settings(deadline=None)  # the machine may be busy
@given(DATA)
def test_agrees_with_json_on_json(data: object) -> None:
    text = json.dumps(data, indent=1)
    assert hujson.plain(hujson.parse(text)) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "1:1", "end of the text where a value was expected"),
        ("{", "1:2", "end of the text"),
        ('{"a": 1\n "b": 2}', "2:2", "inside an object"),
        ("[1,,2]", "1:4", "where a value was expected"),
        ("[1 2]", "1:4", "inside an array"),
        ('{\n  "a": 1,\n  "a": 2\n}', "3:3", '"a" occurs twice; first in line 2'),
        ('{"a": 1, "\\u0061": 2}', "1:10", "occurs twice"),
        ("{a: 1}", "1:2", "where a name was expected"),
        ('{"a" 1}', "1:6", "where a colon was expected"),
        ("[1] x", "1:5", "after the end of the value"),
        ("[tru]", "1:2", '"tru" is not a value'),
        ("[undefined]", "1:2", '"undefined" is not a value'),
        ("[01]", "1:3", "inside a number"),
        ("[1.]", "1:3", "inside a number"),
        ("[+1]", "1:2", "where a value was expected"),
        ("[1e999]", "1:2", "too large"),
        ("[" + "9" * 65 + "]", "1:2", "a number of 65 characters"),
        ("['a']", "1:2", "where a value was expected"),
        ('["a', "1:2", "never closed"),
        ('["a\n"]', "1:2", "never closed"),
        ('["a\tb"]', "1:4", "control character U+0009"),
        ('["\\x"]', "1:3", "no known escape"),
        ('["\\u12"]', "1:3", "no known escape"),
        ('["\\ud800"]', "1:2", "half a surrogate pair"),
        ("[\ud800]", "1:2", "half a surrogate pair"),
        ("[1 /* ]", "1:4", "never closed"),
        ("[1 / 2]", "1:4", "inside an array"),
        ("\ufeff[]", "1:1", "where a value was expected"),
        ("\u00a0[]", "1:1", "where a value was expected"),
    ],
)
def test_refuses_with_place_and_reason(text: str, place: str, words: str) -> None:
    with pytest.raises(hujson.HujsonError) as raised:
        hujson.parse(text)
    assert raised.value.place == place
    assert words in raised.value.message


def test_columns_count_characters_not_bytes() -> None:
    with pytest.raises(hujson.HujsonError) as raised:
        hujson.parse('["ü𝄞", x]')
    assert raised.value.place == "1:8"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_is_limited_without_exhausting_the_stack(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    deepest = hujson.MAX_DEPTH
    text = opening * deepest + "1" * (opening != "[") + closing * deepest
    assert hujson.dump(hujson.parse(text)) == text
    with pytest.raises(hujson.HujsonError, match="nested deeper"):
        hujson.parse(opening * 100_000)


def test_size_is_limited() -> None:
    with pytest.raises(hujson.HujsonError, match="the limit is"):
        hujson.parse(" " * hujson.MAX_SIZE + "1")


@pytest.mark.parametrize("text", ["/*" + "*" * 500_000, '"' + "x" * 1_000_000, '"' + "\\n" * 500_000 + "\\q"])
def test_long_faults_are_found_in_one_pass(text: str) -> None:
    with pytest.raises(hujson.HujsonError):
        hujson.parse(text)


def test_comments_stay_where_they_were() -> None:
    value = hujson.parse('// top\n{ "a": 1, /* b? */ // or c\n }')
    assert isinstance(value, hujson.Object)
    assert hujson.comments(value.before) == ["// top"]
    assert hujson.comments(value.tail) == ["/* b? */", "// or c"]
    assert value.members[0].comma


def test_places_of_values() -> None:
    text = '{\n  "a": [1,\n    /* x */ 2]\n}'
    value = hujson.parse(text)
    assert isinstance(value, hujson.Object)
    array = value.members[0].value
    assert isinstance(array, hujson.Array)
    lines = hujson.Lines(text)
    assert [lines.locate(element.value.start) for element in array.elements] == [(2, 9), (3, 13)]
    assert lines.locate(len(text)) == (4, 2)
