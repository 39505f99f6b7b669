"""Every rewrite rule with what it makes of what, and what it leaves alone."""

from tests.rewrite_rows import shapes, simplify, stabilize

ROWS = [*simplify.ROWS, *shapes.ROWS, *stabilize.ROWS]
