"""From a graph to a `Program`: what is a view, what is fused, what goes outside, and buffers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..backend import Graph
from ..graph import Node, toposort
from ..op import constant_value, get
from ..ops.index import _gather, _scatter_add, _set_subtensor
from ..ops.join import concatenate
from ..ops.linalg import _matmul
from ..ops.losses import checked_labels
from ..ops.reduce import kept_shape
from ..ops.sort import last_equal
from ..replay import operand as operand_of
from ..scan import scan_op
from ..types import Shape, Size, TupleType, atoms_of, has_values
from .check import check
from .fuse import ALONE, LEAF, LOOP, REDUCE, VIEW, groups_of
from .kinds import draws_by_row
from .program import Buffer, Kernel, Loop, Outside, Place, Product, Program, Rows, Step, contiguous
from .views import is_view, part_of, stretched, view_of

LONGEST_ROW = 1 << 16  # elements, of rows that a kernel walks several times


def schedule(
    graph: Graph,
    prints: Callable[[Node], str | None],
    lower: Callable[[Sequence[Node]], Sequence[Node]],
) -> Program:
    """The program of a graph.

    prints  what a backend makes of a node: "loop" (one element after the other), "reduce",
            "product", "rows", or None if it cannot print it
    lower   what it rewrites first, in the bodies of loops too
    """
    return _Builder(replace(graph, outputs=tuple(lower(graph.outputs))), prints, lower).build()


@dataclass
class _Builder:
    graph: Graph
    prints: Callable[[Node], str | None]
    lower: Callable[[Sequence[Node]], Sequence[Node]]
    places: dict[Node, Place] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    kinds: dict[Node, str] = field(default_factory=dict)
    sources: dict[Node, Node] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    users: Counter[Node] = field(default_factory=Counter)
    kept: set[Node] = field(default_factory=set)  # arrays whose only reader may change them
    after: dict[Node, Node] = field(default_factory=dict)  # array -> itself with a part replaced

    def build(self) -> Program:
        order = toposort(self.graph.outputs)
        inputs = tuple(self._buffer("input", n).buffer for n in self.graph.inputs)
        for node in order:
            self._classify(node)
            self.users.update(set(node.dependencies))
            if node.op is _set_subtensor and not _has_values(node):
                base, value = node.inputs
                self.after[base] = node
                self.users[base] += base is value  # which is read while it would be changed
        self.users.update(self.graph.outputs)
        groups = groups_of(order, self.kinds.__getitem__, self.sources.__getitem__, self._spreads)
        needed = self._needed(groups)
        wanted = self._own_outputs(needed)
        for group in groups:
            self._step(group, needed, wanted)
        outputs = tuple(self._output(n, i, wanted) for i, n in enumerate(self.graph.outputs))
        program = Program(
            inputs, outputs, tuple(self.buffers), tuple(self.steps), self.graph.atoms, self.places
        )
        check(program)
        return program

    # ---- what nodes are
    def _buffer(self, role: str, node: Node) -> Place:
        buffer = Buffer(len(self.buffers), role, node)
        self.buffers.append(buffer)
        self.places.setdefault(node, Place(buffer, node.shape, contiguous(node.shape)))
        return Place(buffer, node.shape, contiguous(node.shape))

    def _classify(self, node: Node) -> None:
        self.sources[node] = node
        if node in self.places:
            self.kinds[node] = LEAF
        elif constant_value(node) is not None:
            self._buffer("constant", node)
            self.kinds[node] = LEAF
        elif node.op is get:
            self.sources[node], self.kinds[node] = node.inputs[0], VIEW
        elif is_view(node) and not _has_values(node):
            self._classify_view(node)
        else:
            kind = None if _has_values(node) else self.prints(node)
            self.kinds[node] = kind if kind in (LOOP, REDUCE) else ALONE

    def _classify_view(self, node: Node) -> None:
        """A view's place relative to its source, which is known before the source has a buffer."""
        operand = node.inputs[0]
        source = self.sources[operand]
        place = self.places.get(operand)
        if place is None:
            owner = Buffer(-1, "scratch", source if operand.op is not get else operand)
            place = Place(owner, operand.shape, contiguous(operand.shape))
        found = view_of(node, place)
        if found is None:
            self.kinds[node] = ALONE  # a copy
            return
        self.places[node] = found
        self.sources[node], self.kinds[node] = source, VIEW

    def _spreads(self, operand: Node, root: Node) -> bool:
        """Whether an operand is a reduction along its domain's rows, the same for all of a row.

        A row is read several times then, so it should fit into a cache.
        """
        domain, axes = root.inputs[0].shape, root.params["axis"]
        if len(domain) < 2 or tuple(axes) != (len(domain) - 1,) or domain[-1] == 1:
            return False
        if isinstance(domain[-1], int) and domain[-1] > LONGEST_ROW:
            return False
        place = self.places.get(operand)
        if operand is root:
            place = Place(Buffer(-1, "scratch", root), root.shape, contiguous(root.shape))
        if place is None or len(place.shape) > len(domain) or place.offset != 0:
            return False
        kept = kept_shape(domain, axes, True)
        if any(s != 1 and s != d for s, d in zip(place.shape[::-1], domain[::-1], strict=False)):
            return False
        own = Place(place.buffer, kept, contiguous(kept))
        return stretched(place, domain) == stretched(own, domain)

    # ---- what is kept
    def _needed(self, groups: list[list[Node]]) -> set[Node]:
        """The nodes that others than their own group read from memory."""
        group_of = {n: i for i, group in enumerate(groups) for n in group}
        needed = set(self.graph.outputs)
        for node, place in group_of.items():
            for operand in _wanted(node):
                if operand not in group_of or group_of[operand] != place:
                    needed.add(operand)
        # a view is read from what it is a view of
        for node in list(needed):
            if self.kinds[node] == VIEW:
                while self.kinds[node] == VIEW and node.op is not get:
                    node = node.inputs[0]
                needed.add(node)
        return needed

    def _own_outputs(self, needed: set[Node]) -> dict[Node, int]:
        """The outputs that their step can write where they belong: a node, and the first place."""
        found: dict[Node, int] = {}
        for i, node in enumerate(self.graph.outputs):
            loop = node.op is get and node.inputs[0].op is scan_op
            step = node.op in (_matmul, _set_subtensor, concatenate, _gather, _scatter_add)
            if self.kinds[node] in (LOOP, REDUCE) or step or loop:
                found.setdefault(node, i)
        return found

    def _result(self, node: Node, wanted: dict[Node, int]) -> Place:
        """A buffer for what a step makes."""
        return self._buffer("output" if node in wanted else "scratch", node)

    def _end_of_parts(self, node: Node) -> Node:
        """The last of the replacements of parts that follow on one another in one array."""
        while self.users[node] == 1 and (after := self.after.get(node)) is not None:
            node = after
        return node

    # ---- steps
    def _step(self, group: list[Node], needed: set[Node], wanted: dict[Node, int]) -> None:
        first = group[0]
        if self.kinds[first] in (LOOP, REDUCE):
            self.steps.append(self._kernel(group, needed, wanted))
        elif is_view(first) and not _has_values(first):
            self._copy(first)
        elif first.op is _set_subtensor and not _has_values(first):
            self._put(first, wanted)
        elif first.op is concatenate and not _has_values(first):
            self._join(first, wanted)
        elif first.op is scan_op and (loop := self._loop(first, needed, wanted)) is not None:
            self.steps.append(loop)
        elif self.prints(first) == "product" and not _has_values(first):
            left, right = (self._matrix(n) for n in first.inputs)
            self.steps.append(Product(first, left, right, self._result(first, wanted)))
        elif self.prints(first) == "rows" and not _has_values(first):
            self._rows(first, wanted)
        else:
            self._outside(first, needed)

    def _kernel(self, group: list[Node], needed: set[Node], wanted: dict[Node, int]) -> Kernel:
        inside = set(group)
        first = group[0]
        domain = first.inputs[0].shape if self.kinds[first] == REDUCE else first.shape
        reads: dict[Node, Place] = {}
        rows: dict[Node, Node] = {}
        writes: dict[Node, Place] = {}
        reduced: dict[Node, Place] = {}
        for node in group:
            for operand in node.dependencies:
                root = self.sources[operand]
                if root in inside and self.kinds[root] == REDUCE:
                    rows[operand] = root
                elif operand not in inside:
                    reads[operand] = _along(self._place(operand), domain)
            if "key" in node.op.operand_names:
                # two numbers that are the same for all elements
                key = operand_of(node, "key")
                reads[key] = Place(self._place(key).buffer, domain, (0,) * len(domain))
                if draws_by_row(node):
                    ids = operand_of(node, "example")
                    reads[ids] = _by_row(self._place(ids), domain)
        for node in group:
            if self.kinds[node] == REDUCE:
                place = self._result(node, wanted)
                axes = node.params["axis"]
                kept = Place(
                    place.buffer, kept_shape(domain, axes, True),
                    contiguous(kept_shape(domain, axes, True)),
                )  # fmt: skip
                reduced[node] = _along(kept, domain)
            elif node in needed:
                writes[node] = self._result(node, wanted)
        return Kernel(domain, tuple(group), reads, writes, reduced, rows)

    def _put(self, node: Node, wanted: dict[Node, int]) -> None:
        """A part of an array replaced: in its copy, or in itself if nobody else reads it."""
        base, value = node.inputs
        if base in self.kept:
            self.places[node] = self.places[base]
        else:
            role = "output" if self._end_of_parts(node) in wanted else "scratch"
            copy = self._buffer(role, node)
            self.steps.append(Kernel(node.shape, (), {base: self._place(base)}, {base: copy}, {}))
        if self.users[node] == 1:
            self.kept.add(node)
        part = part_of(self.places[node], node.params["index"], value.shape)
        self.steps.append(Kernel(value.shape, (), {value: self._place(value)}, {value: part}, {}))

    def _join(self, node: Node, wanted: dict[Node, int]) -> None:
        """Arrays one behind the other, each copied to its part of the result."""
        axis, result = node.params["axis"], self._result(node, wanted)
        offset: Size = 0
        for value in node.inputs:
            start = result.offset + offset * result.strides[axis]
            part = Place(result.buffer, value.shape, result.strides, start)
            step = Kernel(value.shape, (), {value: self._place(value)}, {value: part}, {})
            self.steps.append(step)
            offset = offset + value.shape[axis]

    def _rows(self, node: Node, wanted: dict[Node, int]) -> None:
        """Rows that are fetched, added to in a copy, or only looked for."""
        ids = self._plain(node.inputs[-1], False)
        if node.op is last_equal:
            self.steps.append(Rows(node, ids, 0, None, self._result(node, wanted)))
            return
        if node.op is checked_labels:
            self.places[node] = self._place(node.inputs[0])
            self.steps.append(Rows(node, ids, node.params["classes"]))
            return
        limit, result = node.inputs[0].shape[0], self._result(node, wanted)
        if node.op is _gather:
            table = self._plain(node.inputs[0], True)
            self.steps.append(Rows(node, ids, limit, table, result))
            return
        base, value = node.inputs[:2]
        rows = self._plain(value, False)
        self.steps.append(Kernel(node.shape, (), {base: self._place(base)}, {base: result}, {}))
        self.steps.append(Rows(node, ids, limit, result, rows))

    def _loop(self, node: Node, needed: set[Node], wanted: dict[Node, int]) -> Loop | None:
        """A scan as a loop, if all of its step can be printed."""
        count, rows = node.params["carries"], node.params["sequences"]
        if _has_values(node) or node.params["values"]:
            return None
        items = [get.make((node,), {"index": i}) for i in range(len(node.type.items))]
        used = [i for i in range(count, len(items)) if items[i] in needed]
        body = node.params["body"]
        outputs = tuple(body.outputs[i] for i in (*range(count), *used))
        inner = Graph(tuple(body.inputs), outputs, self.graph.atoms)
        program = schedule(inner, self.prints, self.lower)
        if not program.is_printed:
            return None
        given = [self._plain(n, i in range(count, count + rows)) for i, n in enumerate(node.inputs)]
        carries = []
        for item in items[:count]:
            end = self._result(item, wanted).buffer
            spare = Buffer(len(self.buffers), "scratch", item)
            self.buffers.append(spare)
            carries.append((end, spare))
        outs = tuple(self._result(items[i], wanted).buffer for i in used)
        return Loop(
            node, program, node.params["length"], node.params["reverse"], tuple(given[:count]),
            tuple(given[count : count + rows]), tuple(given[count + rows :]), tuple(carries), outs,
        )  # fmt: skip

    def _plain(self, node: Node, rows: bool) -> Place:
        """An operand in C order; with `rows`, every row along the first axis."""
        place, start = self._place(node), int(rows)
        pairs = zip(place.strides[start:], contiguous(place.shape[start:]), strict=True)
        sizes = place.shape[start:]
        if all(a == b or s == 1 for (a, b), s in zip(pairs, sizes, strict=True)):
            return place
        return self._dense(node, place)

    def _copy(self, view: Node) -> None:
        """A view that memory has no strides for: its operand written out in C order."""
        operand = view.inputs[0]
        place = self._buffer("scratch", view)
        out = Place(place.buffer, operand.shape, contiguous(operand.shape))
        self.steps.append(
            Kernel(operand.shape, (), {operand: self._place(operand)}, {operand: out}, {})
        )

    def _matrix(self, node: Node) -> Place:
        """An operand of a product, each matrix of which a library can read as it is."""
        place = self._place(node)
        rows, columns = place.strides[-2:]
        sizes = node.shape[-2:]
        if columns == 1 or rows == 1 or 1 in sizes:
            return place
        return self._dense(node, place)

    def _dense(self, node: Node, place: Place) -> Place:
        buffer = Buffer(len(self.buffers), "scratch", node)
        self.buffers.append(buffer)
        out = Place(buffer, node.shape, contiguous(node.shape))
        self.steps.append(Kernel(node.shape, (), {node: place}, {node: out}, {}))
        return out

    def _outside(self, node: Node, needed: set[Node]) -> None:
        # constants stay in the graph that the other backend gets
        found = [n for n in _wanted(node) if constant_value(n) is None]
        operands = [(n, self._place(n)) for n in found]
        results: list[Buffer | None] = []
        if isinstance(node.type, TupleType):
            for i in range(len(node.type.items)):
                item = get.make((node,), {"index": i})
                results.append(self._buffer("foreign", item).buffer if item in needed else None)
        else:
            results.append(self._buffer("foreign", node).buffer)
        self.steps.append(Outside(node, tuple(operands), tuple(results)))

    def _place(self, node: Node) -> Place:
        """Where a node is, now that what it is made from has a buffer."""
        place = self.places[node]
        if place.buffer.number >= 0:
            return place
        chain = [node]
        while chain[-1].inputs and self.places[chain[-1]].buffer.number < 0:
            chain.append(chain[-1].inputs[0])
        for view in reversed(chain[:-1]):
            found = view_of(view, self.places[view.inputs[0]])
            assert found is not None, view
            self.places[view] = found
        return self.places[node]

    def _output(self, node: Node, index: int, wanted: dict[Node, int]) -> Buffer:
        """The buffer of an output, which nothing else shares."""
        place = self._place(node)
        if wanted.get(node) == index:
            return place.buffer
        own = place.buffer.role == "foreign" and place.shape == place.buffer.node.shape
        # a kernel cannot copy what has a size unknown before the call: whoever runs it copies
        again = node in self.graph.outputs[:index] and not _has_values(node)
        if own and place.is_whole and not again:
            return place.buffer
        buffer = Buffer(len(self.buffers), "output", node)
        self.buffers.append(buffer)
        out = Place(buffer, node.shape, contiguous(node.shape))
        self.steps.append(Kernel(node.shape, (), {node: place}, {node: out}, {}))
        return buffer


def _along(place: Place, domain: Shape) -> Place:
    """A place with strides for all axes of a domain."""
    return Place(place.buffer, domain, stretched(place, domain), place.offset)


def _by_row(place: Place, domain: Shape) -> Place:
    """A vector with an element for every row of a domain."""
    strides = (*place.strides, *(0 for _ in domain[1:]))
    return Place(place.buffer, domain, strides, place.offset)


def _sizes(*nodes: Node) -> Iterator[Size]:
    """The sizes of nodes' tensors."""
    for node in nodes:
        types = node.type.items if isinstance(node.type, TupleType) else (node.type,)
        for found in types:
            yield from found.shape


def _has_values(node: Node) -> bool:
    """Whether sizes of a node, its operands or its params are values of the graph itself."""
    return bool(node.size_inputs) or has_values(_sizes(node, *node.inputs))


def _wanted(node: Node) -> list[Node]:
    """What a node needs: its dependencies, and the nodes whose values are sizes of its operands."""
    sizes = atoms_of(_sizes(*node.inputs))
    return list(
        dict.fromkeys([*node.dependencies, *(a.args[0] for a in sizes if a.kind == "value")])
    )
