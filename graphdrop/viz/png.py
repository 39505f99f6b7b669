"""A scene as PNG, drawn by matplotlib without its global state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DependencyError
from .scene import Arrow, Rect, Scene, Text, curve

LARGEST = 16_000.0  # pixels along one side; larger scenes are scaled down


def write_png(scene: Scene, path: Path) -> None:
    """Draw at two pixels for each of the scene's, less where the file would be huge."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise DependencyError(
            "PNG pictures need matplotlib; install it with: pip install 'graphdrop[viz]', or draw "
            "to .svg or .html"
        ) from None

    dpi = 72.0  # so that a point is one of the scene's pixels
    figure = Figure(figsize=(scene.width / dpi, scene.height / dpi), dpi=dpi, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    for arrow in scene.arrows:
        _arrow(axes, arrow)
    for group in scene.groups:
        _rect(axes, group.rect)
        for text in group.texts:
            _text(axes, text)
    for mark in scene.marks:
        if isinstance(mark, Rect):
            _rect(axes, mark)
        else:
            _text(axes, mark)
    scale = min(2.0, LARGEST / max(scene.width, scene.height))
    FigureCanvasAgg(figure).print_figure(path, dpi=dpi * scale)


def _rect(axes: Any, rect: Rect) -> None:
    from matplotlib.patches import FancyBboxPatch

    radius = min(rect.look.radius, rect.height / 2)
    axes.add_patch(
        FancyBboxPatch(
            (rect.x, rect.y), rect.width, rect.height,
            boxstyle=f"round,pad=0,rounding_size={radius}", facecolor=rect.look.fill,
            edgecolor=rect.look.stroke, linewidth=rect.line,
            linestyle=(0, (4, 2)) if rect.look.dash else "solid", zorder=2,
        )
    )  # fmt: skip


def _text(axes: Any, text: Text) -> None:
    # parse_math off: a user's `$` is no formula
    axes.text(
        text.x, text.y, text.text, fontsize=text.size * 0.94, color=text.color, zorder=3,
        ha="center" if text.anchor == "middle" else "left", va="center_baseline",
        fontweight="bold" if text.bold else "normal", family="DejaVu Sans", parse_math=False,
    )  # fmt: skip


def _arrow(axes: Any, arrow: Arrow) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Line

    points: list[tuple[float, float]] = []
    codes: list[Any] = []

    def start(x: float, y: float) -> None:
        points.append((x, y))
        codes.append(Line.MOVETO)

    def bend(*p: float) -> None:
        points.extend([(p[0], p[1]), (p[2], p[3]), (p[4], p[5])])
        codes.extend([Line.CURVE4] * 3)

    curve(arrow.points, start, bend)
    line = PathPatch(
        Line(points, codes), fill=False, edgecolor=arrow.color, linewidth=1.2, zorder=1
    )
    axes.add_patch(line)
    x, y = arrow.points[-1]
    head = [(x - 2.8, y - 6.5), (x + 2.8, y - 6.5), (x, y)]
    axes.add_patch(Polygon(head, closed=True, color=arrow.color, linewidth=0, zorder=1))
