"""From a graph as its user built it to an executable: rewritten and compiled, unless an earlier
process has kept what was compiled of a graph like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from .backend import Backend, Executable, Graph
from .commit import computed_for
from .fingerprint import fingerprint
from .graph import Node, current_origin, origin_scope
from .ops.leaf import Shared
from .rewrite import Trace
from .rules import optimize as rewrite


class Compilation:
    """A graph as built, with the values that its last outputs update.

    optimize  whether rewrites run

    What rewrites make belongs to the line where the user compiles, also if it is made later on.
    """

    def __init__(
        self, built: Graph, updated: Sequence[Shared], backend: Backend, optimize: bool
    ) -> None:
        self.built, self.updated = built, updated
        self.backend, self.optimize, self.origin = backend, optimize, current_origin()
        # a device writes a whole array as soon as rows at positions that it has to look for
        self.by_rows = optimize and backend.is_host

    @cached_property
    def rewritten(self) -> tuple[Graph, Trace]:
        """The graph after rewrites, and which of them fired; made when somebody asks."""
        if not self.optimize:
            return self.built, Trace()
        with origin_scope(self.origin):
            nodes, trace = rewrite(self.built.outputs, self.updated if self.by_rows else ())
        return replace(self.built, outputs=tuple(nodes)), trace

    def computed(self) -> Graph:
        """What the backend compiles: of rows that are written in place only these."""
        return self._computed[0]

    @cached_property
    def _computed(self) -> tuple[Graph, list[str]]:
        graph, _ = self.rewritten
        count = len(graph.outputs) - len(self.updated)
        nodes: list[Node] = list(graph.outputs[:count])
        kinds = []
        for variable, new in zip(self.updated, graph.outputs[count:], strict=True):
            kind, found = computed_for(variable, new, self.by_rows)
            kinds.append(kind)
            nodes += found
        return replace(graph, outputs=tuple(nodes)), kinds

    def compiled(self) -> tuple[Executable, list[str]]:
        """The executable of `computed`, and how each update is put in place (see `commit`)."""
        with origin_scope(self.origin):
            store, name = self.backend.store, None
            if store is not None and (name := self._name()) is not None:
                found = store.revive(name, self.built.atoms, self.computed)
                if found is not None:
                    executable, kinds = found
                    return executable, kinds.split(",") if kinds else []
            executable = self.backend.compile(self.computed())
            if store is not None and name is not None:
                store.keep(name, executable, ",".join(self._computed[1]))
            return executable, self._computed[1]

    def _name(self) -> str | None:
        """A name for all that decides what is compiled; see `fingerprint`."""
        inputs, outputs = self.built.inputs, self.built.outputs
        number = {node: i for i, node in enumerate(inputs)}
        return fingerprint(inputs, outputs, [number[v] for v in self.updated], self.optimize)
