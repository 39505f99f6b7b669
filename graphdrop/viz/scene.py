"""A picture as plain shapes in pixels, y downwards: all that the file formats have to print."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from .layout import Point, layered
from .picture import GRADIENT, LEAVES, Box, Picture

MARGIN = 28.0
TITLE, SMALL = 13.0, 10.5  # sizes of letters
INK, PALE, PAPER = "#1f2937", "#6b7280", "#ffffff"


@dataclass(frozen=True)
class Look:
    """How a box is drawn; `radius` of its corners."""

    fill: str
    stroke: str
    ink: str = INK
    radius: float = 6.0
    dash: bool = False


LOOKS = {
    "input": Look("#d9f2e3", "#3f9e68", radius=16),
    "shared": Look("#d6e6fb", "#4a7fc1", radius=16),
    "constant": Look("#eeeeee", "#9a9a9a", radius=16),
    "stream": Look("#f3e3f7", "#a35bb5", radius=16),
    "dropout": Look("#c2255c", "#8a1740", ink="#ffffff"),
    "random": Look("#f3d1e3", "#b5477f"),
    "op": Look("#f5f7fb", "#8e9cb8"),
    "product": Look("#e3e1fa", "#6b5fc4"),
    "pack": Look("#eeedfb", "#6b5fc4"),
    "rows": Look("#fdf3cf", "#b99a2c"),
    "loop": Look("#dcf1f4", "#3c93a1"),
    "outside": Look("#fdeceb", "#b42318", dash=True),
    "output": Look("#374151", "#1f2937", ink="#ffffff"),
    "more": Look("#ffffff", "#9a9a9a", radius=12, dash=True),
}
GRADIENT_OP = Look("#fdeedd", "#d98a3a")
GRADIENT_DROPOUT = Look("#c2255c", "#e8902e", ink="#ffffff", dash=True)
ARROWS = {"forward": "#8391ab", GRADIENT: "#dd9a55"}
GRADIENTS = {
    "op": ("gradient and updates", GRADIENT_OP),
    "dropout": ("dropout of a gradient", GRADIENT_DROPOUT),
}
NAMES = {
    "input": "input",
    "shared": "shared value",
    "constant": "constant",
    "stream": "random stream",
    "dropout": "dropout",
    "random": "random draw",
    "op": "operation",
    "product": "product of matrices",
    "pack": "operand laid out for a loop",
    "rows": "rows at positions",
    "loop": "loop",
    "outside": "on the numpy backend",
    "output": "result",
    "more": "not shown",
}


@dataclass(frozen=True)
class Rect:
    """A box from its left upper corner."""

    x: float
    y: float
    width: float
    height: float
    look: Look
    line: float = 1.2


@dataclass(frozen=True)
class Text:
    """One line; `anchor` 'middle' or 'start', y at the middle of the letters."""

    x: float
    y: float
    text: str
    size: float
    color: str
    bold: bool = False
    anchor: str = "middle"


@dataclass(frozen=True)
class Arrow:
    """A smooth line through points, with a head at the last."""

    points: tuple[Point, ...]
    color: str
    ends: tuple[int, int]


@dataclass(frozen=True)
class Group:
    """A box with its texts; `tip` is its hover text."""

    rect: Rect
    texts: tuple[Text, ...]
    tip: tuple[str, ...]


Mark: TypeAlias = "Rect | Text"


@dataclass
class Scene:
    """Arrows below boxes, and the marks of title, legend and note."""

    width: float
    height: float
    arrows: list[Arrow] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)


def look_of(box: Box) -> Look:
    if box.part == GRADIENT and box.kind in GRADIENTS:
        return GRADIENTS[box.kind][1]
    return LOOKS[box.kind]


def text_width(text: str, size: float) -> float:
    """About how wide a line of sans-serif letters is, rather too wide than too narrow."""
    return size * sum(map(_letter, text))


def _letter(c: str) -> float:
    if unicodedata.east_asian_width(c) in "WF":
        return 1.05
    if c in "il.,'|:;!fjtI[]() ":
        return 0.42
    return 0.9 if c in "mwMW@%—…" else 0.75 if c.isupper() else 0.64


def scene_of(picture: Picture) -> Scene:
    """Shapes for a picture: title and legend on top, the graph below, centred."""
    sizes = [_size(box) for box in picture.boxes]
    layout = layered(sizes, picture.arrows, [_weight(picture, *a) for a in picture.arrows])
    marks, legend_width, top = _heading(picture, max(layout.width, 560.0))
    width = max(layout.width, legend_width) + 2 * MARGIN
    left = (width - layout.width) / 2
    scene = Scene(width, top + layout.height + MARGIN, marks=marks)
    for ends, route in zip(picture.arrows, layout.routes, strict=True):
        points = tuple((x + left, y + top) for x, y in route)
        scene.arrows.append(Arrow(points, ARROWS[picture.boxes[ends[1]].part], ends))
    for box, size, (x, y) in zip(picture.boxes, sizes, layout.centres, strict=True):
        scene.groups.append(_group(box, size, x + left, y + top))
    return scene


def _weight(picture: Picture, start: int, end: int) -> float:
    """How straight an arrow should be: the forward computation is the spine a reader looks for."""
    if picture.boxes[start].kind in LEAVES:
        return 0.2
    return 1.0 if picture.boxes[end].part == GRADIENT else 4.0


def _size(box: Box) -> Point:
    widths = [text_width(box.title, TITLE), *(text_width(t, SMALL) for t in box.lines)]
    return max(widths) + 22.0, 25.0 + 14.0 * len(box.lines)


def _group(box: Box, size: Point, x: float, y: float) -> Group:
    width, height = size
    look = look_of(box)
    line = 2.4 if look.dash and box.kind == "dropout" else 1.2
    rect = Rect(x - width / 2, y - height / 2, width, height, look, line)
    first = rect.y + 13.0
    texts = [Text(x, first, box.title, TITLE, look.ink, bold=box.kind != "op")]
    color = PALE if look.ink == INK else look.ink
    texts += [Text(x, first + 14.5 * i, t, SMALL, color) for i, t in enumerate(box.lines, start=1)]
    return Group(rect, tuple(texts), box.tip)


def _heading(picture: Picture, room: float) -> tuple[list[Mark], float, float]:
    """Title, legend (of what occurs) and note; their width; and where the graph may begin."""
    marks: list[Mark] = []
    y, widest = MARGIN, 0.0
    if picture.title:
        marks.append(Text(MARGIN, y, picture.title, 17.0, INK, bold=True, anchor="start"))
        widest, y = text_width(picture.title, 17.0), y + 28.0
    x = MARGIN
    for name, look in _legend(picture):
        need = 26.0 + text_width(name, SMALL) + 16.0
        if x + need > room + MARGIN and x > MARGIN:
            x, y = MARGIN, y + 22.0
        swatch = Look(look.fill, look.stroke, radius=min(look.radius, 6.5), dash=look.dash)
        marks.append(Rect(x, y - 6.5, 20.0, 13.0, swatch))
        marks.append(Text(x + 26.0, y, name, SMALL, PALE, anchor="start"))
        x += need
        widest = max(widest, x - MARGIN)
    y += 24.0
    if picture.note:
        marks.append(Text(MARGIN, y, picture.note, SMALL, "#b42318", bold=True, anchor="start"))
        widest, y = max(widest, text_width(picture.note, SMALL)), y + 24.0
    return marks, widest, y + 8.0


def _legend(picture: Picture) -> list[tuple[str, Look]]:
    found = {(b.kind, b.part == GRADIENT and b.kind in GRADIENTS) for b in picture.boxes}
    entries: list[tuple[str, Look]] = []
    for kind, name in NAMES.items():
        if (kind, False) in found:
            entries.append((name, LOOKS[kind]))
        if (kind, True) in found:
            look = GRADIENT_OP if kind == "op" else GRADIENT_DROPOUT
            entries.append(
                ("gradient and updates" if kind == "op" else "dropout of a gradient", look)
            )
    return entries


def curve(points: tuple[Point, ...], start: Callable[..., None], bend: Callable[..., None]) -> None:
    """Walk a smooth line: `start(x, y)`, then `bend(x1, y1, x2, y2, x, y)` for every piece."""
    start(*points[0])
    for (xa, ya), (xb, yb) in pairwise(points):
        middle = (ya + yb) / 2
        bend(xa, middle, xb, middle, xb, yb)
