"""A scene as SVG, and as an HTML page that shows types and origins on hover."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from ..printing import shown
from .scene import Arrow, Group, Mark, Rect, Scene, Text, curve

FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"


def svg_text(scene: Scene) -> str:
    """The scene as an SVG document; nothing in a user's name can become markup."""
    size = f'width="{_n(scene.width)}" height="{_n(scene.height)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
        f'viewBox="0 0 {_n(scene.width)} {_n(scene.height)}" font-family="{escape(FONT)}">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{_body(scene)}</svg>\n'
    )


def html_text(scene: Scene, title: str) -> str:
    """A page of its own: no file or address beside it is read, and only our script can run."""
    folder = files(__package__)
    style, script = (
        folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    policy = f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        f"<title>{_safe(title or 'graphdrop')}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f'{svg_text(scene)}<div id="tip"></div>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _safe(text: str) -> str:
    """Text for element content and attributes; control characters are not even legal there."""
    return escape(shown(text), quote=True)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _body(scene: Scene) -> str:
    parts = [_mark(m) for m in scene.marks]
    colors = sorted({a.color for a in scene.arrows})
    heads = {color: f"head{i}" for i, color in enumerate(colors)}
    parts += [_head(name, color) for color, name in heads.items()]
    parts += [_arrow(a, heads[a.color]) for a in scene.arrows]
    parts += [_group(i, g) for i, g in enumerate(scene.groups)]
    return "".join(f"{p}\n" for p in parts)


def _head(name: str, color: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" '
        f'markerHeight="7" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0.8 L8 4 L0 7.2 z" fill="{color}"/></marker>'
    )


def _arrow(arrow: Arrow, head: str) -> str:
    words: list[str] = []
    curve(
        arrow.points,
        lambda *p: words.append("M" + " ".join(map(_n, p))),
        lambda *p: words.append("C" + " ".join(map(_n, p))),
    )
    start, end = arrow.ends
    return (
        f'<path class="arrow" data-from="{start}" data-to="{end}" d="{" ".join(words)}" '
        f'fill="none" stroke="{arrow.color}" stroke-width="1.3" marker-end="url(#{head})"/>'
    )


def _group(index: int, group: Group) -> str:
    inner = "".join([_mark(group.rect), *map(_mark, group.texts)])
    return f'<g class="box" data-box="{index}"><title>{_tip(group.tip)}</title>{inner}</g>'


def _tip(lines: Sequence[str]) -> str:
    return "\n".join(map(_safe, lines))


def _mark(mark: Mark) -> str:
    if isinstance(mark, Text):
        weight = ' font-weight="600"' if mark.bold else ""
        return (
            f'<text x="{_n(mark.x)}" y="{_n(mark.y)}" font-size="{_n(mark.size)}" '
            f'fill="{mark.color}" text-anchor="{mark.anchor}" dy="0.35em"{weight}>'
            f"{_safe(mark.text)}</text>"
        )
    return _rect(mark)


def _rect(rect: Rect) -> str:
    look = rect.look
    dash = ' stroke-dasharray="5 3"' if look.dash else ""
    return (
        f'<rect x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}" '
        f'height="{_n(rect.height)}" rx="{_n(min(look.radius, rect.height / 2))}" '
        f'fill="{look.fill}" stroke="{look.stroke}" stroke-width="{_n(rect.line)}"{dash}/>'
    )
