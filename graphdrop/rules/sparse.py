"""Updates that change few rows of a table: the other rows are neither read nor written.

The gradient of rows taken from a table is `scatter_add(zeros, g, ids)`, a table of zeros but for
the rows `ids`.  Where what an optimizer makes of it leaves the other rows as they are, as

    W - lr * scatter_add(zeros, ids, g)

does, the same arithmetic is done on the rows used alone, W[rows], and put back: `scatter_set(W,
new, rows)`, which `commit.py` writes in place.  The rows used are the ids; of rows that are
named several times the last stands for all, so no size depends on what the ids are.

See docs/decisions/0010-sparse-rows.md for what is equal to the bit, and what is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

import numpy as np

from ..graph import Node, origin_scope, toposort
from ..op import Op, constant, constant_value
from ..ops import elementwise as e
from ..ops.create import zeros
from ..ops.gather import row_index
from ..ops.index import _gather, _scatter_add, _scatter_set, window
from ..ops.join import concatenate
from ..ops.leaf import Shared
from ..ops.reduce import sum as sum_of
from ..ops.shape import broadcast_to, reshape
from ..ops.sort import last_equal
from ..rewrite import Fired, Trace, is_number, scalar, scalar_of
from ..substitute import substitute
from ..types import Size, num_elements

PHASE = "sparse"
# Rows named twice are looked for, which pays where the table has many more rows than are used.  Of
# a number of ids that is known at the call only, this says what many is.
ROWS_AT_LEAST = 1024

ZERO = constant(0.0)  # what stands for 0 of any dtype in the rows that are not used
KEEP_ZERO = frozenset({e.neg, e.abs, e.square, e.sqrt, e.sign, e._cast})


def sparse_updates(updated: Sequence[Shared], targets: Sequence[Node], trace: Trace) -> list[Node]:
    """`targets`, the last of which are the new values of `updated`, with sparse row updates."""
    made = list(targets)
    sparse: set[Node] = set()
    first = len(targets) - len(updated)
    for i, (old, new) in enumerate(zip(updated, targets[first:], strict=True), first):
        with origin_scope(new.origin):
            found = _update_of_rows(old, new, sparse)
        if found is not None:
            trace.append(Fired(PHASE, "update_of_rows", new, found, new.origin))
            made[i] = found
    return _sums_of_rows(made, sparse, trace) if sparse else made


def _update_of_rows(old: Shared, new: Node, sparse: set[Node]) -> Node | None:
    """The update on the rows that it changes; None if it changes others, or would not gain.

    `sparse` gets the scatters that it is made of.
    """
    if not old.ndim or old.array.shape[0] < 2 or new.shape != old.shape:
        return None
    if new.op is _scatter_set and new.inputs[0] is old:
        return None  # on rows already, as the user wrote it
    table = _Table(old.shape[0], new)
    if table.unused.get(new) is not old or not table.pays():
        return None
    sparse.update(table.scatters)
    index = {"index": row_index(old.shape)}
    put = _scatter_set.make((old, table.on_rows(new), table.rows), index)
    if not table.finite:
        return put
    # 0 times a factor that is not finite is NaN in every row
    sound = reduce(e.logical_and, [reshape(e.isfinite(f), ()) for f in table.finite])
    return e.where(sound, put, constant(np.full((), np.nan, old.dtype)))


def _sums_of_rows(targets: list[Node], sparse: set[Node], trace: Trace) -> list[Node]:
    """Sums over all rows of what is 0 in the rows not used, as the norm of a gradient is."""
    replaced: dict[Node, Node] = {}
    reached = set(sparse)  # and the tables made of these row by row
    for node in toposort(targets):
        if _is_row_by_row(node.op) and node.ndim:
            reached |= {node} if reached.intersection(_operands(node, node.shape[0])) else set()
        if node.op is not sum_of or 0 not in node.params["axis"] or node.inputs[0] not in reached:
            continue
        (x,) = node.inputs
        table = _Table(x.shape[0], x)
        if table.unused[x] is ZERO and not table.finite:
            with origin_scope(node.origin):
                replaced[node] = sum_of.make((table.on_rows(x),), dict(node.params))
            trace.append(Fired(PHASE, "sum_of_rows", node, replaced[node], node.origin))
    return substitute(targets, replaced)


class _Table:
    """An elementwise expression over tables of `count` rows, of which scatters use some.

    cone      its nodes that are such tables, operands first
    scatters  those of them that put rows
    unused    what a node is in the rows not used: ZERO, or what a table is
    finite    scalars that must be finite, or `unused` does not hold
    """

    def __init__(self, count: Size, root: Node) -> None:
        self.count = count
        self.cone = list(_cone(root, count))
        self.scatters = [n for n in self.cone if is_row_scatter(n)]
        self.finite: dict[Node, None] = {}
        self.unused: dict[Node, Node | None] = {}
        for node in self.cone:
            self.unused[node] = self._unused(node)

    def pays(self) -> bool:
        """Whether few of the rows are used, as far as is known."""
        if not self.scatters:
            return False
        (used,) = self.rows.shape
        assert isinstance(self.count, int)
        return 2 * used <= self.count if isinstance(used, int) else self.count >= ROWS_AT_LEAST

    # ---- in the rows that are not used
    def _unused(self, node: Node) -> Node | None:
        if node in self.scatters:
            return self.unused[node.inputs[0]]
        if not _is_row_by_row(node.op):
            return ZERO if is_number(node, 0) else node
        found = [self.unused.get(i) for i in node.inputs]
        first, last = found[0], found[-1]
        if node.op in KEEP_ZERO:
            return ZERO if first is ZERO else self._unused_cast(node)
        if node.op in (e.add, e.sub) and last is ZERO:
            return first
        if node.op is e.add and first is ZERO:
            return last
        if node.op is e.mul and (first is ZERO or last is ZERO):
            other = node.inputs[1 if first is ZERO else 0]
            return ZERO if last is first or self._is_finite(other) else None
        if node.op is e.div and first is ZERO:
            return ZERO if self._is_divisor(node.inputs[1]) else None
        if node.op in (e.maximum, e.minimum) and first is ZERO:
            limit = scalar_of(node.inputs[1])
            within = limit is not None and (limit <= 0 if node.op is e.maximum else limit >= 0)
            return ZERO if within else None
        if node.op is e.where and found[1] is ZERO and last is ZERO and not self.finite:
            return ZERO  # and not NaN in some rows only, if a factor turns out not to be finite
        return None

    def _unused_cast(self, node: Node) -> Node | None:
        """What a float is that was cast to a wider dtype, or comes back from it."""
        found = self.unused[node.inputs[0]]
        if node.op is not e._cast or found is None:
            return None
        source = found.inputs[0] if found.op is e._cast else found
        if not np.can_cast(source.dtype, found.dtype, "safe"):
            return None
        return source if node.dtype == source.dtype else e.cast(source, node.dtype)

    def _is_finite(self, factor: Node) -> bool:
        """Whether a factor is known to be finite, or a scalar that can be asked at the call."""
        if factor.dtype.kind != "f":
            return True
        known = constant_value(factor)
        if known is not None:
            return bool(np.isfinite(known).all())
        return self._ask(factor)

    def _is_divisor(self, divisor: Node) -> bool:
        """Whether 0 / divisor is 0: of a number, a scalar, or sqrt(x) + eps as in Adagrad."""
        value = scalar_of(divisor)
        if value is not None:
            return bool(value != 0 and not np.isnan(value))
        if divisor.op is e.add:
            for a, b in (divisor.inputs, divisor.inputs[::-1]):
                eps = scalar_of(b)
                if a.op is e.sqrt and eps is not None:
                    return bool(eps > 0)
        return self._ask(scalar(0, divisor) / divisor)

    def _ask(self, value: Node) -> bool:
        """Have the call find out whether a scalar is finite; False if it is no scalar."""
        while value.op is broadcast_to:
            (value,) = value.inputs
        if num_elements(value.shape) != 1:
            return False
        self.finite[value] = None
        return True

    # ---- in the rows that are
    @property
    def rows(self) -> Node:
        """The positions used; int64, as many as there are ids."""
        every = [reshape(p, (-1,)) for p in dict.fromkeys(map(self.places, self.scatters))]
        return every[0] if len(every) == 1 else concatenate(every)

    def last(self) -> dict[Node, Node]:
        """For the places of each scatter, where in `rows` the same row comes last."""
        last, found = last_equal.make((self.rows,), {}), {}
        start: Size = 0
        for places in dict.fromkeys(map(self.places, self.scatters)):
            count = num_elements(places.shape)
            found[places] = reshape(window(last, 0, start, count), places.shape)
            start = start + count
        return found

    def places(self, scatter: Node) -> Node:
        """The ids of a scatter, counted from the start; those out of range stay so."""
        ids = scatter.inputs[2]
        places = e.cast(ids, np.int64)
        if ids.dtype.kind == "u":
            return places
        from_end = e.logical_and(e.less(places, 0), e.greater_equal(places, -self.count))
        return e.where(from_end, places + self.count, places)

    def on_rows(self, root: Node) -> Node:
        """What a node of the cone is in `rows`; of equal ones, the last has what scatters put."""
        rows, last = self.rows, self.last()
        (used,) = rows.shape
        done: dict[Node, Node] = {}
        for node in self.cone:
            shape = (used, *node.shape[1:])
            inputs = tuple(done.get(i, i) for i in node.inputs)
            with origin_scope(node.origin):
                if node in self.scatters:
                    given = (*inputs[:2], last[self.places(node)])
                    done[node] = node.op.make(given, dict(node.params))
                elif is_number(node, 0):
                    done[node] = zeros(shape, node.dtype)
                elif _is_row_by_row(node.op):
                    done[node] = node.op.make(inputs, dict(node.params))
                else:
                    done[node] = reshape(self._taken(node), shape)
        return done[root]

    def _taken(self, table: Node) -> Node:
        """Its rows at `rows`: of one scatter's as the model has them already, taken by its ids."""
        ids = dict.fromkeys(s.inputs[2] for s in self.scatters)
        rows = next(iter(ids)) if len(ids) == 1 else self.rows
        return _gather.make((table, rows), {"index": row_index(table.shape)})


def _is_row_by_row(op: Op) -> bool:
    return op.elementwise or op in (e._cast, e.where)


def is_row_scatter(node: Node) -> bool:
    """Whether a node is a table with values put in rows, or added to rows, that ids name."""
    return (
        node.op in (_scatter_add, _scatter_set)
        and len(node.inputs) == 3
        and node.params["index"] == row_index(node.shape)
    )


def _operands(node: Node, count: Size) -> Iterable[Node]:
    """The tables of `count` rows that a node works on, row by row."""
    if _is_row_by_row(node.op):
        return [i for i in node.inputs if i.ndim == node.ndim and i.shape[0] == count]
    return node.inputs[:1] if is_row_scatter(node) else ()


def _cone(root: Node, count: Size) -> Iterator[Node]:
    """`root` and the tables that it is made of row by row, operands first."""
    stack, seen = [(root, False)], set()
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(i, False) for i in _operands(node, count)]
