"""The drawings of the door pages, as inline SVG without styles of its own: every colour comes from door.css by class.

The door is the sign for access and for nothing else. Everything drawn is computed from one number, how far the leaf has
turned: from 0, shut, to 1, open. Pure.
"""

import math
from enum import Enum
from typing import NamedTuple

from markupsafe import Markup


class Door(Enum):
    """How a door stands; the value is its class on the page."""

    OPEN = "open"  # may enter, or is inside
    AJAR = "ajar"  # a person must do something first
    SHUT = "shut"  # no way in, or ended
    BARRED = "barred"  # refused

    @property
    def turned(self) -> float:
        """How far its leaf has turned, from 0 to 1."""
        return {Door.OPEN: 1.0, Door.AJAR: 0.4}.get(self, 0.0)


# The large door's box, and the opening in it. The foot of the opening is where the page draws the sill.
BOX = (180, 232)
_LEFT, _RIGHT, _TOP, _FOOT = 46.0, 134.0, 22.0, 182.0
_WIDTH = _RIGHT - _LEFT
_FRAME = 7.0  # the frame stands this far outside the opening
_TURN = 1.35  # radians at 1: a door that stands open still shows its leaf
_DROP = 26.0  # how far the leaf's free edge comes forward, seen as below the sill
_LIFT = 0.55  # of it at the top
_PANELS = ((0.065, 0.46), (0.6, 0.925))  # along the leaf's height
_PANEL_SIDES = (0.16, 0.845)  # along its width


class _Leaf(NamedTuple):
    """The leaf as turned: its free edge, and how far that edge is lowered at the foot."""

    edge: float
    drop: float

    @classmethod
    def at(cls, turned: float) -> "_Leaf":
        angle = _TURN * turned
        return cls(_LEFT + _WIDTH * math.cos(angle), _DROP * math.sin(angle))

    def point(self, along: float, down: float) -> tuple[float, float]:
        """A point of the leaf: ``along`` from the hinge to the free edge, ``down`` from its top to its foot."""
        top = _TOP + _LIFT * self.drop * along
        foot = _FOOT + self.drop * along
        return _LEFT + (self.edge - _LEFT) * along, top + (foot - top) * down

    def panel(self, left: float, right: float, top: float, foot: float) -> list[tuple[float, float]]:
        """A rectangle of the leaf, as it is seen."""
        return [
            self.point(left, top),
            self.point(right, top),
            self.point(right, foot),
            self.point(left, foot),
        ]


def large_door(door: Door, label: str) -> Markup:
    """The large door, named ``label`` for those who do not see it. Its sill is the page's to draw, 50 units above its foot."""
    leaf = _Leaf.at(door.turned)
    parts: list[str] = []
    if door.turned:
        spill = (leaf.edge + 14, BOX[1]), (_RIGHT + 26, BOX[1])
        lit = [(leaf.edge, _FOOT), (_RIGHT, _FOOT), *reversed(spill)]
        parts += [
            _gradient("glow", ("lit-1", 0), ("lit-2", 1)),
            _gradient("spill", ("lit-2", 0), ("lit-0", 1)),
            f'<path d="{_closed(_opening())}" fill="url(#glow)"/>',
            f'<path d="{_closed(lit)}" fill="url(#spill)"/>',
        ]
    parts.append(f'<path class="leaf" d="{_closed(leaf.panel(0, 1, 0, 1))}"/>')
    for top, foot in _PANELS:
        parts.append(f'<path class="panel" d="{_closed(leaf.panel(*_PANEL_SIDES, top, foot))}"/>')
    if door.turned:
        (x, top), (_, foot) = leaf.point(1, 0), leaf.point(1, 1)
        thick = [(x, top), (x + 2.2, top - 0.6), (x + 2.2, foot - 0.8), (x, foot)]
        parts.append(f'<path class="edge" d="{_closed(thick)}"/>')
    x, y = leaf.point(0.88, 0.535)
    parts.append(f'<circle class="knob" cx="{_n(x)}" cy="{_n(y)}" r="3"/>')
    parts.append(f'<path class="frame" d="{_frame()}"/>')
    if door is Door.BARRED:
        parts.append('<path class="bar" d="M30 99h120v14H30z"/>')
        parts.append('<path class="post" d="M24 93h7v26h-7zM149 93h7v26h-7z"/>')
    return Markup('<svg class="door" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        *BOX,
        label,
        Markup("".join(parts)),  # noqa: S704 - numbers and our own class names, nothing from outside
    )


def _frame() -> str:
    left, right, top = _LEFT - _FRAME, _RIGHT + _FRAME, _TOP - _FRAME
    return f"M{_n(left)} {_n(_FOOT)}V{_n(top + 9)}a9 9 0 0 1 9-9H{_n(right - 9)}a9 9 0 0 1 9 9V{_n(_FOOT)}"


def _opening() -> list[tuple[float, float]]:
    return [(_LEFT, _TOP), (_RIGHT, _TOP), (_RIGHT, _FOOT), (_LEFT, _FOOT)]


def _gradient(name: str, *stops: tuple[str, int]) -> str:
    inner = "".join(f'<stop class="{css}" offset="{offset}"/>' for css, offset in stops)
    return f'<linearGradient id="{name}" x1="0" y1="0" x2="0" y2="1">{inner}</linearGradient>'


def _closed(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points) + "z"


def _n(value: float) -> str:
    """At most two decimals, and none for a whole number: the page is counted in bytes."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


# Small drawings, all hidden from readers: the word always stands beside them. --------------------------------------

# A box of 16 by 17. The leaf is the dark part and the gap the bright one in both states, also in greyscale.
_GLYPH_LEAVES = {Door.OPEN: "M4 2.6 5.8 4.4v11.2L4 14z", Door.AJAR: "M4 2.6 9.9 3.4v11.4L4 14z"}


def glyph(door: Door) -> Markup:
    """The door as small as a letter."""
    leaf = _GLYPH_LEAVES.get(door)
    if leaf is not None:
        inside = f'<path class="gap" d="M4 2.6h8V14H4z"/><path class="flap" d="{leaf}"/>'
    elif door is Door.SHUT:
        inside = '<path class="flat" d="M4 2.6h8V14H4z"/><circle class="dot" cx="10" cy="8.6" r=".9"/>'
    else:
        inside = '<path class="flat" d="M4 2.6h8V14H4z"/><path class="across" d="M2 8.4h12"/>'
    frame = '<path class="line" d="M3.4 14V3.2a1.4 1.4 0 0 1 1.4-1.4h6.4a1.4 1.4 0 0 1 1.4 1.4V14M1.2 14.4h13.6"/>'
    return Markup(  # noqa: S704 - constants only
        f'<svg class="glyph {door.value}" viewBox="0 0 16 17" aria-hidden="true">{inside}{frame}</svg>'
    )


_DEVICES = {
    "phone": "M8 3.5h8a1.5 1.5 0 0 1 1.5 1.5v14a1.5 1.5 0 0 1-1.5 1.5H8A1.5 1.5 0 0 1 6.5 19V5A1.5 1.5 0 0 1 8 3.5zM12 17.5v.01",
    "computer": "M6.5 5h11A1.5 1.5 0 0 1 19 6.5V16H5V6.5A1.5 1.5 0 0 1 6.5 5zM2.5 19h19",
}
_PHONES = frozenset({"android", "ios", "tvos"})


def device(system: str) -> Markup:
    """A device, by the operating system it says it runs."""
    path = _DEVICES["phone" if system.lower() in _PHONES else "computer"]
    return Markup(  # noqa: S704 - constants only
        f'<svg class="device" viewBox="0 0 24 24" aria-hidden="true"><path d="{path}"/></svg>'
    )


def finger() -> Markup:
    """A finger's lines, beside the words of a button that asks for a passkey."""
    lines = (
        "M5 14v-2a7 7 0 0 1 14 0v1M8 18c.6-1.5.9-3 .9-5v-1a3.1 3.1 0 0 1 6.2 0v1c0 2.5-.4 4.6-1.2 6.5"
        "M12 12v1.5c0 2.6-.5 4.8-1.5 6.8M18.8 16.5c-.1 1-.3 1.9-.6 2.8"
    )
    return Markup(  # noqa: S704 - constants only
        f'<svg class="finger" viewBox="0 0 24 24" aria-hidden="true"><path d="{lines}"/></svg>'
    )
