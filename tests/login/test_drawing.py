"""The drawings: computed from one number, named for those who do not see them, and without any style of their own."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.login.drawing import BOX, Door, device, glyph, large_door

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def corners(drawing: str, css: str) -> list[tuple[float, float]]:
    """The corners of the first path of this class."""
    root = ET.fromstring(drawing)
    path = next(each.attrib["d"] for each in root.iter("path") if each.get("class") == css)
    numbers = [float(each) for each in NUMBER.findall(path)]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_a_shut_leaf_fills_the_opening() -> None:
    assert corners(large_door(Door.SHUT, "no way in"), "leaf") == [(46, 22), (134, 22), (134, 182), (46, 182)]


def test_an_ajar_leaf_leaves_a_slit_and_reaches_over_the_sill() -> None:
    top_hinge, top, foot, foot_hinge = corners(large_door(Door.AJAR, "waits"), "leaf")
    assert top_hinge == (46.0, 22.0)
    assert foot_hinge == (46.0, 182.0)
    assert top == (121.48, 29.35)  # 46 + 88 cos 0.54, 22 + 0.55 * 26 sin 0.54
    assert foot == (121.48, 195.37)  # 182 + 26 sin 0.54


def test_an_open_leaf_is_nearly_gone() -> None:
    _, top, foot, _ = corners(large_door(Door.OPEN, "inside"), "leaf")
    assert top[0] == foot[0] == 65.27
    assert foot[1] < BOX[1]


@pytest.mark.parametrize("door", Door)
def test_light_falls_only_through_a_door_that_is_not_shut(door: Door) -> None:
    assert ("url(#glow)" in large_door(door, "")) == (door in {Door.OPEN, Door.AJAR})
    assert ('class="bar"' in large_door(door, "")) == (door is Door.BARRED)


@pytest.mark.parametrize("door", Door)
def test_every_drawing_is_whole_and_brings_no_style(door: Door) -> None:
    for drawing in (large_door(door, "so"), glyph(door), device("linux"), device("iOS")):
        ET.fromstring(drawing)
        assert "style" not in drawing
        assert not re.search(r"#[0-9a-f]{3,6}\b", drawing)  # a colour that the scheme could not change


def test_the_large_door_has_a_name_and_the_small_ones_do_not_speak() -> None:
    assert (
        ET.fromstring(large_door(Door.AJAR, "waits for approval")).get("aria-label") == "waits for approval"
    )
    assert ET.fromstring(glyph(Door.AJAR)).get("aria-hidden") == "true"
    assert ET.fromstring(device("linux")).get("aria-hidden") == "true"


def test_states_differ_without_colour() -> None:
    shapes = {re.sub(r' class="[^"]*"', "", glyph(door)) for door in Door}
    assert len(shapes) == len(Door)


def test_phones_look_like_phones() -> None:
    assert device("iOS") == device("android") != device("windows") == device("anything else")


@given(st.text())
def test_a_label_stays_a_label(label: str) -> None:
    drawing = large_door(Door.SHUT, label)
    inside = drawing.partition('aria-label="')[2].partition('"')[0]
    assert "<" not in inside
    assert drawing.count("<svg") == 1
