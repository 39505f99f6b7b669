"""Pictures: what is in them, where it is put, and that users' names are only ever text."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import graphdrop as gd
from graphdrop import viz
from graphdrop.errors import ArgumentError, DependencyError
from graphdrop.viz.layout import assign_layers, closest, layered
from graphdrop.viz.picture import Picture, picture_of
from graphdrop.viz.scene import LOOKS, look_of, scene_of

SVG = "{http://www.w3.org/2000/svg}"


def network(name: str = "hidden", rate: float = 0.5) -> dict[str, gd.Node]:
    """A network with dropout and its loss, by name."""
    x, training = gd.matrix("x", shape=("batch", 3)), gd.flag("training")
    w = gd.shared(np.full((3, 4), 0.5, "f4"), "W")
    h = gd.dropout(gd.tanh(x @ w), rate, gd.RandomStream(5), training, name=name)
    return {"x": x, "training": training, "w": w, "h": h, "loss": gd.square(h).mean()}


def step(name: str = "hidden", **options: object) -> gd.Function:
    n = network(name)
    updates = {n["w"]: n["w"] - 0.1 * gd.grad(n["loss"], n["w"])}
    return gd.function([n["x"]], n["loss"], updates, {n["training"]: True}, name="step", **options)


def edge(user: gd.Node, operand: gd.Node) -> dict[str, str]:
    return dict(viz.to_networkx(user).edges[operand, user])


def titles(picture: Picture) -> list[str]:
    return [b.title for b in picture.boxes]


class TestNetworkx:
    networkx = pytest.importorskip("networkx")

    def test_attributes(self) -> None:
        n = network()
        g = viz.to_networkx(n["loss"])
        nx = g.nodes
        assert set(nx) >= set(n.values())
        assert nx[n["x"]]["kind"] == "input"
        assert nx[n["w"]]["kind"] == "shared"
        drop = nx[n["h"]]
        assert (drop["kind"], drop["draw"], drop["rate"]) == ("dropout", "hidden", 0.5)
        assert int(drop["site"]) == n["h"].params["site"]
        assert drop["type"] == "float32[batch, 4]"
        assert drop["dtype"] == "float32"
        assert drop["origin"].startswith(f"{__file__}:")
        assert nx[n["loss"]]["output"] == "output"
        assert {d["kind"] for _, d in nx.items()} == {
            "input", "shared", "dropout", "op", "constant", "stream",
        }  # fmt: skip

    def test_edges_are_operands(self) -> None:
        x, y = gd.scalar("x"), gd.scalar("y")
        g = viz.to_networkx([x - y, x * x])
        assert g.edges[y, x - y] == {"operand": "xs[1]", "position": "1"}
        h = network()["h"]
        assert edge(h, h.inputs[0]) == {"operand": "x", "position": "0"}
        assert g.edges[x, x * x]["position"] == "0,1"
        assert self.networkx.is_directed_acyclic_graph(g)

    def test_parts_and_updates(self) -> None:
        f = step()
        g = viz.to_networkx(f)
        parts = self.networkx.get_node_attributes(g, "part")
        loss, new = f.graph.outputs
        assert parts[loss] == "forward"
        assert parts[new] == "gradient"
        drops = [d for _, d in g.nodes.items() if d["kind"] == "dropout"]
        assert sorted(d["part"] for d in drops) == ["forward", "gradient"]
        assert len({d["site"] for d in drops}) == 1
        assert g.nodes[new]["updates"] == "W"

    def test_writes_graphml(self, tmp_path: Path) -> None:
        g = self.networkx.convert_node_labels_to_integers(viz.to_networkx(step()))
        self.networkx.write_graphml(g, tmp_path / "g.graphml")
        back = self.networkx.read_graphml(tmp_path / "g.graphml", node_type=int)
        assert dict(back.nodes(data="title")) == dict(g.nodes(data="title"))

    def test_missing_networkx_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "networkx", None)
        with pytest.raises(DependencyError, match=r"pip install 'graphdrop\[viz\]'"):
            viz.to_networkx(gd.scalar("x"))


class TestPicture:
    def test_dropout_has_site_and_rate(self) -> None:
        (box,) = [b for b in picture_of(network(rate=0.2)["loss"]).boxes if b.kind == "dropout"]
        assert box.lines[0] == "'hidden' · rate 0.2"
        assert box.lines[1] == "float32[batch, 4]"

    def test_symbolic_rate_and_shared_axes(self) -> None:
        x, rate = gd.matrix("x"), gd.dscalar("rate")
        y = gd.dropout(x, rate, gd.RandomStream(0), True, axes=1)
        (box,) = [b for b in picture_of(y).boxes if b.kind == "dropout"]
        assert box.lines[:2] == ("site 0 · rate known at the call", "shared over axes (1,)")

    def test_collapsed_scalars_sizes_and_transposes_are_written_into_their_users(self) -> None:
        x = gd.matrix("x", shape=("batch", 3))
        found = titles(picture_of(gd.cast(x.T, "float64") * 0.1))
        assert found == ["mul(·ᵀ, 0.1)", "x", "output"]
        assert "div(·, batch)" in titles(picture_of(x[:, 0].mean()))

    def test_collapse_off_shows_every_node(self) -> None:
        loss = network()["loss"]
        whole = picture_of(loss, collapse=False)
        assert len({b.node for b in whole.boxes if b.node is not None}) == sum(
            b.node is not None for b in whole.boxes
        )
        assert len(whole.boxes) > len(picture_of(loss).boxes)
        assert any(b.kind == "constant" for b in whole.boxes)

    def test_leaves_are_repeated_beside_their_users(self) -> None:
        x = gd.scalar("x")
        y = gd.exp(x) * gd.sin(gd.cos(x))
        assert titles(picture_of(y)).count("x") == 2
        assert titles(picture_of(y, collapse=False)).count("x") == 1

    def test_gradient_part(self) -> None:
        n = network()
        g = gd.grad(n["loss"], n["w"])
        parts = {b.node: b.part for b in picture_of([n["loss"], g], forward=n["loss"]).boxes}
        assert parts[n["h"]] == "forward"
        assert parts[g] == "gradient"
        assert {b.part for b in picture_of([n["loss"], g]).boxes} == {"forward"}

    def test_updates_are_marked_as_gradient(self) -> None:
        boxes = {b.title: b for b in picture_of(step()).boxes}
        assert boxes["output"].part == "forward"
        assert boxes["new W"].part == "gradient"

    def test_an_output_that_is_an_input_or_a_constant(self) -> None:
        x = gd.scalar("x")
        picture = picture_of({"x": x, "c": gd.constant(2.0)})
        assert sorted(titles(picture)) == ["output['c'] = 2.0", "output['x']", "x"]
        assert len(picture.arrows) == 1

    def test_source_is_before_rewrites(self) -> None:
        x = gd.vector("x")
        f = gd.function([x], gd.exp(x) * 1)
        assert "mul(·, 1.0)" in titles(picture_of(f, what="source"))
        assert "mul(·, 1.0)" not in titles(picture_of(f))

    def test_every_kind_looks_different(self) -> None:
        assert len({(k.fill, k.dash) for k in LOOKS.values()}) == len(LOOKS)
        for kind in ("op", "dropout"):
            boxes = [b for b in picture_of(step()).boxes if b.kind == kind]
            assert len({look_of(b) for b in boxes}) == 2

    def test_limit_keeps_what_is_near_the_outputs_and_says_so(self) -> None:
        x = y = gd.scalar("x")
        for _ in range(10_000):
            y = gd.tanh(y)
        picture = picture_of(y, limit=50)
        assert sum(b.kind == "op" for b in picture.boxes) == 50
        assert sum(b.kind == "more" for b in picture.boxes) == 1
        assert picture.note.startswith("50 of 10,001 values shown")
        assert y in {b.node for b in picture.boxes}
        assert x not in {b.node for b in picture.boxes}
        assert not picture_of(gd.tanh(x), limit=50).note

    def test_large_graphs_with_gradients_are_drawn(self, tmp_path: Path) -> None:
        x = y = gd.vector("x")
        for _ in range(2_000):
            y = gd.tanh(y)
        loss = y.sum()
        path = viz.draw([loss, gd.grad(loss, x)], tmp_path / "g.svg", forward=loss)
        assert "400 of " in path.read_text(encoding="utf-8")

    def test_mistakes(self, tmp_path: Path) -> None:
        x = gd.scalar("x")
        with pytest.raises(ArgumentError, match=r"must end in .svg, .html, .png"):
            viz.draw(x, tmp_path / "g.pdf")
        with pytest.raises(ArgumentError, match="limit must be a positive integer"):
            viz.draw(x, tmp_path / "g.svg", limit=0)
        with pytest.raises(ArgumentError, match="takes nodes or a compiled function"):
            viz.draw("x", tmp_path / "g.svg")
        with pytest.raises(ArgumentError, match="what must be"):
            viz.draw(x, tmp_path / "g.svg", what="all")
        assert list(tmp_path.iterdir()) == []


class TestLayout:
    @pytest.mark.parametrize("seed", range(8))
    def test_boxes_do_not_touch_and_arrows_go_down(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n = 40
        sizes = [(float(w), float(h)) for w, h in rng.uniform(10, 150, (n, 2))]
        pairs = {tuple(sorted(p)) for p in rng.integers(0, n, (60, 2)).tolist() if p[0] != p[1]}
        arrows = sorted((int(a), int(b)) for a, b in pairs)
        layout = layered(sizes, arrows, [1.0] * len(arrows))
        for (a, (ax, ay)), (b, (bx, by)) in itertools.combinations(enumerate(layout.centres), 2):
            across = abs(ax - bx) - (sizes[a][0] + sizes[b][0]) / 2
            down = abs(ay - by) - (sizes[a][1] + sizes[b][1]) / 2
            assert max(across, down) > 5
        for (a, b), route in zip(arrows, layout.routes, strict=True):
            ys = [y for _, y in route]
            assert ys == sorted(ys)
            for end, box, side in ((route[0], a, 0.5), (route[-1], b, -0.5)):
                (x, y), (width, height) = layout.centres[box], sizes[box]
                assert abs(end[0] - x) <= width / 2
                assert end[1] == pytest.approx(y + side * height)
        for (x, y), (width, height) in zip(layout.centres, sizes, strict=True):
            assert width / 2 - 1e-6 <= x <= layout.width - width / 2 + 1e-6
            assert height / 2 - 1e-6 <= y <= layout.height - height / 2 + 1e-6

    def test_a_chain_is_a_straight_line(self) -> None:
        layout = layered([(50.0, 20.0)] * 6, list(itertools.pairwise(range(6))), [1.0] * 5)
        assert len({round(x, 6) for x, _ in layout.centres}) == 1
        assert all(a[0] == pytest.approx(b[0]) for a, b in layout.routes)

    def test_crossings_that_can_be_avoided_are(self) -> None:
        # three chains whose boxes are listed in another order on every layer
        arrows = [(0, 5), (1, 4), (2, 3), (3, 7), (4, 8), (5, 6)]
        layout = layered([(50.0, 20.0)] * 9, arrows, [1.0] * 6)
        for (a, b), (c, d) in itertools.combinations(arrows, 2):
            if layout.centres[a][1] == layout.centres[c][1]:
                left = layout.centres[a][0] - layout.centres[c][0]
                assert left * (layout.centres[b][0] - layout.centres[d][0]) > 0

    def test_leaves_stand_just_above_their_users(self) -> None:
        arrows = [(0, 1), (1, 2), (2, 3), (4, 3)]
        assert assign_layers(5, arrows) == [0, 1, 2, 3, 2]

    def test_no_boxes(self) -> None:
        assert layered([], [], []).centres == []

    @pytest.mark.parametrize("seed", range(5))
    def test_closest_is_the_least_squares_solution(self, seed: int) -> None:
        from scipy.optimize import minimize

        rng = np.random.default_rng(seed)
        wanted, weights = rng.normal(0, 3, 7), rng.uniform(0.2, 4, 7)
        gaps = rng.uniform(0.1, 2, 6)
        found = np.array(closest(wanted.tolist(), weights.tolist(), gaps.tolist()))
        assert (np.diff(found) >= gaps - 1e-9).all()
        best = minimize(
            lambda x: (weights * (x - wanted) ** 2).sum(), np.arange(7.0) * 3, method="SLSQP",
            constraints={"type": "ineq", "fun": lambda x: np.diff(x) - gaps},
            options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        np.testing.assert_allclose(found, best.x, atol=1e-4)


EVIL = "</text></svg><script>alert(1)</script>\"' onload=x & <!-- ]]> \x00\x07\ud800"


class TestFiles:
    def test_svg_has_every_box_arrow_and_legend_entry(self, tmp_path: Path) -> None:
        f = step()
        path = viz.draw(f, tmp_path / "g.svg")
        picture = picture_of(f)
        root = ET.fromstring(path.read_text(encoding="utf-8"))
        boxes = [g for g in root.iter(f"{SVG}g") if g.get("class") == "box"]
        assert len(boxes) == len(picture.boxes)
        assert sum(p.get("class") == "arrow" for p in root.iter(f"{SVG}path")) == len(
            picture.arrows
        )
        words = [t.text for t in root.iter(f"{SVG}text")]
        for legend in ("input", "shared value", "dropout", "gradient and updates", "result"):
            assert legend in words
        assert "step on numpy" in words
        assert words.count("'hidden' · rate 0.5") == 2

    def test_everything_lies_inside_the_picture(self) -> None:
        scene = scene_of(picture_of(step()))
        for group in scene.groups:
            r = group.rect
            assert r.x > 0
            assert r.y > 0
            assert r.x + r.width < scene.width
            assert r.y + r.height < scene.height

    @pytest.mark.parametrize("suffix", ["svg", "html"])
    def test_names_cannot_become_markup(self, tmp_path: Path, suffix: str) -> None:
        x = gd.matrix(EVIL, shape=("batch", 3))
        w = gd.shared(np.ones((3, 3), "f4"), EVIL)
        y = gd.dropout(x @ w, 0.5, gd.RandomStream(0), True, name=EVIL.replace("\ud800", ""))
        f = gd.function([x], {EVIL: y}, {w: w * 2}, name=EVIL)
        page = viz.draw(f, tmp_path / f"g.{suffix}").read_text(encoding="utf-8")
        assert "<script>alert" not in page
        assert page.count("<script") == (suffix == "html")
        svg = page[page.index("<svg") : page.index("</svg>") + 6]
        root = ET.fromstring(svg)  # well formed, whatever the names
        allowed = {"svg", "rect", "text", "marker", "path", "g", "title"}
        assert {e.tag.removeprefix(SVG) for e in root.iter()} <= allowed
        assert not any(k.startswith("on") for e in root.iter() for k in e.attrib)
        tips = [t.text or "" for t in root.iter(f"{SVG}title")]
        assert any("<script>alert(1)</script>" in t and "\\x00" in t for t in tips)

    def test_html_stands_alone_and_runs_only_its_own_script(self, tmp_path: Path) -> None:
        page = viz.draw(step(), tmp_path / "g.html").read_text(encoding="utf-8")
        addresses = re.findall(r"https?://[^\"'\s<]+", page)
        assert set(addresses) == {"http://www.w3.org/2000/svg"}
        assert not re.search(r"\b(src|href|@import)\s*=", page)
        for tag in ("script", "style"):
            (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
            policy = page[page.index("Content-Security-Policy") : page.index("<title>")]
            assert f"{tag}-src &#x27;sha256-{digest}&#x27;" in policy

    def test_hover_text_has_type_and_origin(self, tmp_path: Path) -> None:
        root = ET.fromstring(viz.draw(network()["loss"], tmp_path / "g.svg").read_text())
        tips = [t.text or "" for t in root.iter(f"{SVG}title")]
        (tip,) = [t for t in tips if t.startswith("dropout  float32[batch, 4]")]
        assert "rate=0.5 (32768/65536)" in tip
        assert f"built at {__file__}:" in tip

    def test_png(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        x = gd.vector(r"$\frac{")  # no formula
        path = viz.draw(gd.dropout(x, 0.5, gd.RandomStream(0), True), tmp_path / "g.PNG")
        from matplotlib.image import imread

        image = imread(path)
        assert min(image.shape[:2]) > 200
        crimson = np.array([0xC2, 0x25, 0x5C]) / 255
        assert (abs(image[..., :3] - crimson).max(axis=-1) < 0.01).sum() > 1000

    def test_png_of_a_long_chain_stays_in_bounds(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib")
        y = gd.scalar("x")
        for _ in range(300):
            y = gd.tanh(y)
        path = viz.draw(y, tmp_path / "g.png")
        width, height = np.frombuffer(path.read_bytes()[16:24], ">u4")
        assert 14_000 < height <= 16_001
        assert width < height

    def test_missing_matplotlib_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(DependencyError, match=r"graphdrop\[viz\].*\.svg or \.html"):
            viz.draw(gd.scalar("x"), tmp_path / "g.png")


PROGRAM = """
import sys, graphdrop as gd
from tests.test_viz import step
gd.viz.draw(step(), sys.argv[1])
"""


def test_the_same_file_in_every_process(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    found = set()
    for seed in ("0", "1"):
        path = tmp_path / f"{seed}.svg"
        env = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", PROGRAM, path], cwd=root, env=env, check=True)
        found.add(path.read_bytes())
    assert len(found) == 1


class TestPrograms:
    def step(self, backend: str) -> gd.Function:
        x, w = gd.matrix("x"), gd.shared(np.ones((3, 2), np.float32), "weights")
        stream = gd.RandomStream(0)
        h, _ = gd.scan(lambda c, row: (gd.tanh(c + row), None), x @ w, gd.zeros(2))
        loss = gd.dropout(h, 0.5, stream).sum()
        return gd.function(
            [x], loss, updates={w: w - gd.grad(loss, w)}, backend=backend, name="train"
        )

    def test_what_is_fused_and_how_much_is_moved(self, tmp_path: Path) -> None:
        f = self.step("llvm")
        f(np.ones((5, 3), np.float32))
        text = gd.viz.draw(f, tmp_path / "p.svg", what="program").read_text()
        for found in ("train on llvm", "bytes of scratch", "(5, 3) @ (3, 2)", "5 times",
                      "new weights", "product of matrices", "bytes moved", "dropout"):  # fmt: skip
            assert found in text

    def test_before_the_first_call_sizes_have_names(self, tmp_path: Path) -> None:
        text = gd.viz.draw(self.step("llvm"), tmp_path / "p.svg", what="program").read_text()
        assert "(x.shape[0], x.shape[1]) @ (3, 2)" in text
        assert "bytes of scratch" not in text

    def test_a_limit_says_what_is_left_out(self, tmp_path: Path) -> None:
        path = gd.viz.draw(self.step("llvm"), tmp_path / "p.svg", what="program", limit=2)
        assert "the last 2 of" in path.read_text()

    def test_only_programs_are_drawn(self, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError, match="one step an operation"):
            gd.viz.draw(self.step("numpy"), tmp_path / "p.svg", what="program")
        with pytest.raises(ArgumentError, match="only a compiled function has a program"):
            gd.viz.draw(gd.matrix("x"), tmp_path / "p.svg", what="program")
