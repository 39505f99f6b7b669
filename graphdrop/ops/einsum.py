"""einsum, lowered to what it is made of: diagonals, sums, transposes, products of matrices.

So its gradient is theirs, rewrites see through it, and a backend needs nothing for it but the
product that it has.  (An operation of its own would be closed under differentiation as well, but
every backend would have to do this lowering itself.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from ..errors import ArgumentError, ShapeError
from ..graph import Node
from ..op import composed, promoted
from ..types import Shape, Size, num_elements, unify
from .elementwise import cast, coerce, mul
from .gather import diagonal
from .linalg import _matmul
from .reduce import sum
from .shape import reshape, specify_shape, transpose

Labels: TypeAlias = "tuple[str, ...]"  # one for every axis: a letter, or "...k" of an ellipsis


@composed
def einsum(subscripts: str, *operands: Any) -> Node:
    """Einstein summation, as numpy.einsum: 'ij,jk->ik', 'bii->bi', '...ij,...jk', 'i,i', ...

    Labels that are not in the result are summed over; without '->' the result has those that occur
    once, in alphabetical order, after the axes of '...'.  Sizes known to be 1 broadcast.
    Operands are combined from left to right, so put first what makes small products.
    """
    nodes: list[Node] = coerce(operands, promoted(*operands)) if operands else []
    terms, result = _parse(subscripts, [n.ndim for n in nodes])
    pairs = [_diagonal(n, labels) for n, labels in zip(nodes, terms, strict=True)]
    pairs = _agree(pairs)
    node, labels = pairs[0]
    for k, (other, other_labels) in enumerate(pairs[1:], start=1):
        later = {label for _, rest in pairs[k + 1 :] for label in rest}
        node, labels = _product(node, labels, other, other_labels, {*result, *later})
    node, labels = _sum_over(node, labels, set(result))
    return transpose(node, tuple(labels.index(label) for label in result))


# --------------------------------------------------------------------------------------------
# reading the subscripts


def _parse(subscripts: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """The labels of every operand and of the result."""
    if not isinstance(subscripts, str):
        raise ArgumentError(f"the first argument is a string like 'ij,jk->ik', got {subscripts!r}")
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(ranks):
        raise ArgumentError(f"{subscripts!r} is about {len(texts)} operand(s), got {len(ranks)}")
    terms = [_labels(t, rank, subscripts) for t, rank in zip(texts, ranks, strict=True)]
    used = [label for term in terms for label in term]
    dots = tuple(sorted({label for label in used if len(label) > 1}, key=_dot_order))
    if not arrow:
        once = sorted(label for label in set(used) if len(label) == 1 and used.count(label) == 1)
        return terms, (*dots, *once)
    head, ellipsis, tail = _split(right, subscripts)
    result = (*head, *(dots if ellipsis else ()), *tail)
    if dots and not ellipsis:
        raise ArgumentError(f"the result in {subscripts!r} needs '...' as the operands have it")
    if len(set(result)) != len(result):
        raise ArgumentError(f"the result in {subscripts!r} has a label twice")
    unknown = [label for label in result if label not in used]
    if unknown:
        raise ArgumentError(
            f"the result in {subscripts!r} has {unknown[0]!r}, which no operand has"
        )
    return terms, result


def _dot_order(label: str) -> int:
    return -int(label[3:])


def _split(text: str, subscripts: str) -> tuple[str, str, str]:
    head, ellipsis, tail = text.partition("...")
    letters = head + tail
    if letters and not (letters.isascii() and letters.isalpha()):
        raise ArgumentError(f"{subscripts!r} has more than letters, ',', '->' and one '...' a term")
    return head, ellipsis, tail


def _labels(text: str, rank: int, subscripts: str) -> Labels:
    """One label for each axis; those under '...' are counted from the right, to broadcast."""
    head, ellipsis, tail = _split(text, subscripts)
    extra = rank - len(head) - len(tail)
    if extra < 0 or (extra and not ellipsis):
        raise ShapeError(f"{text!r} in {subscripts!r} does not fit an operand with {rank} axes")
    return (*head, *(f"...{k}" for k in reversed(range(extra))), *tail)


# --------------------------------------------------------------------------------------------
# steps; an operand is a node with the labels of its axes


def _diagonal(node: Node, labels: Labels) -> tuple[Node, Labels]:
    """Repeated labels once: the diagonal of their axes."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            size = unify(node.shape[i], node.shape[j], f"axes {i} and {j}, both {label!r}: sizes")
            shape = tuple(size if a in (i, j) else s for a, s in enumerate(node.shape))
            node = diagonal(_with_shape(node, shape), 0, i, j)
            labels = (*(x for a, x in enumerate(labels) if a not in (i, j)), label)
    return node, labels


def _with_shape(node: Node, shape: Shape) -> Node:
    """`node`, whose sizes are checked at the call where they are not known to be these."""
    return node if node.shape == shape else specify_shape(node, shape)


def _agree(pairs: list[tuple[Node, Labels]]) -> list[tuple[Node, Labels]]:
    """The operands with one size for every label, and without axes of size 1 that broadcast."""
    sizes: dict[str, Size] = {}
    for node, labels in pairs:
        for label, size in zip(labels, node.shape, strict=True):
            if label not in sizes or sizes[label] == 1:
                sizes[label] = size
            elif size != 1:
                sizes[label] = unify(sizes[label], size, f"axes labelled {label!r}: sizes")
    found = []
    for node, labels in pairs:
        axes = [(x, s) for x, s in zip(labels, node.shape, strict=True) if s != 1 or sizes[x] == 1]
        if len(axes) < node.ndim:
            node = reshape(node, tuple(s for _, s in axes))
        labels = tuple(label for label, _ in axes)
        found.append((_with_shape(node, tuple(sizes[label] for label in labels)), labels))
    return found


def _sum_over(node: Node, labels: Labels, kept: set[str]) -> tuple[Node, Labels]:
    """The sum over all labels that are not kept, in the operand's dtype."""
    axes = [i for i, label in enumerate(labels) if label not in kept]
    if not axes:
        return node, labels
    return cast(sum(node, axis=axes), node.dtype), tuple(x for x in labels if x in kept)


def _product(a: Node, in_a: Labels, b: Node, in_b: Labels, kept: set[str]) -> tuple[Node, Labels]:
    """The product of two operands, summed over their labels that are not kept."""
    a, in_a = _sum_over(a, in_a, kept | set(in_b))
    b, in_b = _sum_over(b, in_b, kept | set(in_a))
    batch = [x for x in in_a if x in in_b and x in kept]
    inner = [x for x in in_a if x in in_b and x not in kept]
    left = [x for x in in_a if x not in in_b]
    right = [x for x in in_b if x not in in_a]
    size = dict(zip(in_a + in_b, a.shape + b.shape, strict=True))

    def shape(labels: Sequence[str]) -> Shape:
        return tuple(size[x] for x in labels)

    first = transpose(a, tuple(in_a.index(x) for x in (*batch, *left, *inner)))
    result = (*batch, *left, *right)
    if not inner:
        second = transpose(b, tuple(in_b.index(x) for x in (*batch, *right)))
        first = reshape(first, (*first.shape, *(1 for _ in right)))
        second = reshape(second, (*shape(batch), *(1 for _ in left), *shape(right)))
        return mul(first, second), result
    second = transpose(b, tuple(in_b.index(x) for x in (*batch, *inner, *right)))
    rows, columns, depth = (num_elements(shape(x)) for x in (left, right, inner))
    first = reshape(first, (*shape(batch), rows, depth))
    second = reshape(second, (*shape(batch), depth, columns))
    return reshape(_matmul(first, second), shape(result)), result
