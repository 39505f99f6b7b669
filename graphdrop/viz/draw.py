"""`draw`: a graph to a picture file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ArgumentError

SUFFIXES = (".svg", ".html", ".png")


def draw(
    obj: Any,
    path: str | Path,
    *,
    what: str = "graph",
    forward: Any = None,
    collapse: bool = True,
    limit: int = 400,
) -> Path:
    """Draw a graph, operands above what uses them, and return the path of the file.

    obj       a node, nodes in lists, tuples and dicts, or a compiled function
    path      ends in .svg, .html (hovering shows types and origins) or .png (needs matplotlib)
    what      of a function: "graph", what its backend compiled; "source", what was built; or
              "program", the steps that its backend takes: what is fused, bytes moved, memory
    forward   nodes whose ancestors are the forward part; the rest is drawn as gradient.  By default
              the outputs of a function that has updates; otherwise all is drawn as forward
    collapse  write scalar constants, sizes, casts, reshapes and transposes into the boxes of their
              users, and repeat an input or shared value beside each of its users
    limit     at most so many values are drawn, those nearest the outputs; a note says so
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise ArgumentError(
            f"cannot draw to {str(path)!r}: the name must end in {', '.join(SUFFIXES)}"
        )
    # only now, so that `import graphdrop` stays fast
    from .picture import picture_of
    from .scene import scene_of
    from .steps import picture_of_program
    from .svg import html_text, svg_text

    if what == "program":
        picture = picture_of_program(obj, limit)
    else:
        picture = picture_of(obj, what=what, forward=forward, collapse=collapse, limit=limit)
    scene = scene_of(picture)
    match target.suffix.lower():
        case ".svg":
            target.write_text(svg_text(scene), encoding="utf-8")
        case ".html":
            target.write_text(html_text(scene, picture.title), encoding="utf-8")
        case _:
            from .png import write_png

            write_png(scene, target)
    return target
