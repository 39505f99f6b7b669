"""Pictures of graphs: `draw` writes SVG, HTML and PNG; `to_networkx` exports.

    obj -> picture (boxes and arrows) -> layout (coordinates) -> scene (shapes) -> svg, html, png

Importing this loads neither networkx nor matplotlib; `to_networkx` needs the one, PNG the other.
"""

from .draw import draw
from .export import to_networkx

__all__ = ["draw", "to_networkx"]
