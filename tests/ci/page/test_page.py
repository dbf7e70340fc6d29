"""The page in a real browser: what it shows, that it can be used, and that no name in a model becomes markup."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir
import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from ffc.ci.diff.diff import Diff, diff
from ffc.ci.matching.snapshot import of_model
from ffc.ci.page.page import diff_page, model_page
from ffc.graph.cost import Cost
from tests.graphs import encoder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

HOSTILE = ("</script><img src=x onerror=alert(1)>", '"><svg onload=alert(2)>', "&lt;b&gt;\u2028 ]]> <!-- ${alert(3)}")
LAYERS = 12
"""Of the encoder on the page: as many nodes as BERT-base has."""


@dataclass
class Open:
    """A page in a browser, and what it did that it should not."""

    page: Page
    faults: list[str] = field(default_factory=list)

    def box(self, label: str, side: int = 0) -> Locator:
        """Return the box of a drawing whose name for those who cannot see starts with `label`."""
        return self.page.locator("svg.graph").nth(side).locator(f'.boxes > [aria-label^="{label}"]').first

    def transform(self, side: int = 0) -> str:
        return self.page.locator(".scene").nth(side).get_attribute("transform") or ""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def found() -> Diff:
    before, after = (encoder(layers=LAYERS) for _ in range(2))
    norms = [node for node in after.graph if node.op_type == "LayerNormalization"]
    norms[9].attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-5)
    for norm in norms[1:8:2]:
        before_norm(norm)
    for model in (before, after):
        for node, name in zip((n for n in model.graph if n.op_type == "Softmax"), HOSTILE, strict=False):
            node.name = name
        next(iter(model.graph.initializers.values())).const_value.name = HOSTILE[0]
    compared = diff(before, after)
    return replace(compared, before=replace(compared.before, name=f"<i>{HOSTILE[0]}"))


def before_norm(norm: ir.Node) -> None:
    """Put a Relu before a norm."""
    relu = ir.node("Relu", [norm.inputs[0]])
    relu.outputs[0].name = f"{norm.name}.relu"
    norm.graph.insert_before(norm, relu)
    norm.replace_input_with(0, relu.outputs[0])


@pytest.fixture(scope="module")
def address(found: Diff, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("page") / "diff.html"
    file.write_text(diff_page(found), encoding="utf-8")
    return file.as_uri()


def visit(browser: Browser, address: str, width: int = 1400, scheme: str = "light") -> Open:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
    page.set_default_timeout(5_000)
    opened = Open(page)
    page.on("console", lambda message: opened.faults.append(message.text))
    page.on("pageerror", lambda error: opened.faults.append(str(error)))
    page.on("dialog", lambda dialog: (opened.faults.append("a dialog"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            None if request.url == address or request.url.startswith("data:") else opened.faults.append(request.url)
        ),
    )
    page.goto(address)
    page.locator(".boxes .box").first.wait_for()
    return opened


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Open]:
    shown = visit(browser, address)
    yield shown
    faults = shown.faults
    shown.page.close()
    assert not faults


def test_the_buttons_the_wheel_and_the_keys_zoom_both_drawings(opened: Open) -> None:
    seen = [opened.transform(0)]
    opened.page.get_by_label("Zoom in").click()
    seen.append(opened.transform(0))
    opened.page.locator("svg.graph").first.hover()
    opened.page.mouse.wheel(0, -200)
    opened.page.wait_for_timeout(50)
    seen.append(opened.transform(0))
    opened.page.locator("svg.graph").first.focus()
    opened.page.keyboard.press("-")
    seen.append(opened.transform(0))
    assert len(set(seen)) == 4
    scales = [opened.transform(side).partition("scale")[2] for side in (0, 1)]
    assert scales[0] == scales[1]


def test_dragging_moves_a_drawing_and_selects_nothing(opened: Open) -> None:
    before = opened.transform(0)
    box = opened.page.locator("svg.graph").first.bounding_box()
    assert box
    opened.page.mouse.move(box["x"] + 200, box["y"] + 200)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 260, box["y"] + 240, steps=4)
    opened.page.mouse.up()
    assert opened.transform(0) != before
    assert opened.page.locator("#panel").is_hidden()


def test_a_block_unfolds_on_both_sides_and_folds_again(opened: Open) -> None:
    opened.page.get_by_role("button", name="Fold all", exact=True).click()
    opened.box("layer 4").click()
    for side in (0, 1):
        assert opened.box("layer 4, unfolded", side).is_visible()
        assert opened.box("feed-forward", side).is_visible()
    opened.box("layer 4, unfolded").click()
    assert opened.page.locator('[aria-label="layer 4, unfolded"]').count() == 0


def test_all_can_be_unfolded_and_only_what_is_in_sight_is_drawn(opened: Open, found: Diff) -> None:
    opened.page.get_by_role("button", name="Unfold all").click()
    shown = opened.page.evaluate(
        "page.panes.map((pane) => [pane.drawing.boxes.filter((box) => box.kind === 'leaf').length, pane.shown.size])"
    )
    graphs = (found.before.graph, found.after.graph)
    assert [leaves for leaves, _ in shown] == [
        len(graph.nodes) + len(graph.inputs) + len(graph.outputs) for graph in graphs
    ]
    assert all(drawn < leaves for leaves, drawn in shown)


def test_what_is_drawn_does_not_overlap_and_every_operand_has_a_line(opened: Open, found: Diff) -> None:
    opened.page.get_by_role("button", name="Unfold all").click()
    overlaps = opened.page.evaluate("""page.panes.map((pane) => {
        const boxes = pane.drawing.boxes.filter((box) => box.kind !== 'open');
        return boxes.some((a, i) => boxes.slice(0, i).some((b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h));
    })""")
    assert overlaps == [False, False]
    lines = opened.page.evaluate(
        "page.panes.map((pane) => [...new Set(pane.drawing.lines.flatMap((line) => line.links.map(({ from, to }) => `${from} ${to}`)))].length)"
    )
    for side, graph in enumerate((found.before.graph, found.after.graph)):
        inner = {(source, reader) for source, readers in enumerate(graph.consumers) for reader, _, _ in readers}
        outer = {
            (~op.index, at)
            for at, node in enumerate(graph.nodes)
            for op in node.operands
            if hasattr(op, "node") and op.node < 0
        }
        assert lines[side] == len(inner) + len(outer) + len(graph.outputs)


def test_search_finds_a_node_unfolds_its_block_and_goes_on_to_the_next(opened: Open) -> None:
    opened.page.keyboard.press("/")
    opened.page.keyboard.type("softmax")
    assert opened.page.locator("#hits [role=option]").count() == LAYERS
    opened.page.keyboard.press("Enter")
    first = opened.page.locator("#panel h3").first.inner_text()
    here = opened.page.locator(".box.selected")
    assert "Softmax" in first
    assert here.count() == 1
    label = here.get_attribute("aria-label")
    assert opened.page.locator(".box.partner").get_attribute("aria-label") == label
    opened.page.keyboard.press("Enter")
    assert opened.page.locator(".box.selected").get_attribute("aria-label") != label
    opened.page.locator("#query").fill("f32[12,20]")
    assert opened.page.locator("#hits [role=option]").count() == LAYERS
    opened.page.locator("#query").fill("no such thing")
    assert opened.page.get_by_text("Nothing found.").is_visible()


def test_a_change_leads_to_its_nodes_and_the_arrows_to_its_other_places(opened: Open) -> None:
    group = opened.page.locator(".changes li", has_text="Relu inserted")
    assert "×4" in group.inner_text()
    group.locator(".go").click()
    assert group.locator(".at").inner_text() == "1 of 4"
    marked = opened.page.locator(".box.marked")
    assert marked.count() == 1
    assert (marked.get_attribute("aria-label") or "").endswith("inserted")
    place = opened.page.locator("#panel .name").first.inner_text()
    group.get_by_label("next place").click()
    assert group.locator(".at").inner_text() == "2 of 4"
    assert opened.page.locator("#panel .name").first.inner_text() != place
    assert marked.is_visible()


def test_a_changed_attribute_is_shown_before_and_after(opened: Open) -> None:
    opened.page.locator(".changes .go", has_text="epsilon").click()
    assert opened.page.locator("#panel dd .changed").all_inner_texts() == ["1e-12", "1e-05"]
    assert opened.page.locator(".box.marked").count() == 2
    assert [each.text_content() for each in opened.page.locator(".box.marked .small").all()] == [
        "epsilon = 1e-12",
        "epsilon = 1e-05",
    ]


def test_a_node_that_is_gone_shows_what_is_in_its_place(opened: Open) -> None:
    opened.page.locator("#query").fill("relu")
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#panel .empty").inner_text().startswith("Not in the model before")


def test_a_node_that_is_new_says_so_in_the_column_before(opened: Open) -> None:
    opened.page.locator("#query").fill("relu inserted")
    assert opened.page.get_by_text("Nothing found.").is_visible()
    opened.page.locator("#query").fill("relu")
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#panel .empty").inner_text().startswith("Not in the model before")


def test_kinds_of_changes_can_be_left_out(opened: Open) -> None:
    opened.page.locator(".filters .structure").click()
    shown = opened.page.locator(".changes li:not([hidden])")
    assert shown.count() == 1
    assert "epsilon" in shown.inner_text()


def test_a_histogram_is_drawn_when_it_is_asked_for(opened: Open) -> None:
    opened.page.locator("#query").fill("f32[12,20]")
    opened.page.keyboard.press("Enter")
    assert opened.page.locator(".histogram").count() == 0
    opened.page.get_by_role("button", name="histogram").first.click()
    assert opened.page.locator(".histogram rect").count() == 32
    assert "all 240 elements" in opened.page.locator(".histogram").inner_text()
    opened.page.get_by_role("button", name="histogram").first.click()
    assert opened.page.locator(".histogram").count() == 0


def test_the_keys_reach_and_open_boxes(opened: Open) -> None:
    opened.page.get_by_role("button", name="Fold all", exact=True).click()
    drawing = opened.page.locator("svg.graph").first
    drawing.focus()
    opened.page.keyboard.press("ArrowDown")
    here = drawing.get_attribute("aria-activedescendant")
    opened.page.keyboard.press("ArrowDown")
    there = drawing.get_attribute("aria-activedescendant")
    assert here and there and here != there
    assert opened.page.locator(f"[id='{there}'].cursor").count() == 1
    opened.page.locator("#panel").wait_for(state="hidden")
    opened.box("layer 4").click()
    opened.page.keyboard.press("Enter")
    assert opened.page.locator('[aria-label="layer 4, unfolded"]').count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_scheme_and_the_toggle_turns_it(browser: Browser, address: str, scheme: str) -> None:
    opened = visit(browser, address, scheme=scheme)
    color = "getComputedStyle(document.body).backgroundColor"
    first = opened.page.evaluate(color)
    opened.page.get_by_label("Light or dark").click()
    second = opened.page.evaluate(color)
    opened.page.close()
    pair = ("rgb(255, 255, 255)", "rgb(13, 17, 23)")
    assert (first, second) == (pair if scheme == "light" else pair[::-1])
    assert not opened.faults


@pytest.mark.parametrize("width", [420, 1400])
def test_nothing_is_wider_than_the_window(browser: Browser, address: str, width: int) -> None:
    opened = visit(browser, address, width=width)
    for label in ("epsilon", "Relu inserted"):
        opened.page.locator(".changes .go", has_text=label).click()
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.page.locator(".box.marked").first.is_visible()
    tops = [pane["y"] for each in opened.page.locator(".pane").all() if (pane := each.bounding_box())]
    opened.page.close()
    assert (tops[0] == tops[1]) == (width == 1400)
    assert not opened.faults


def test_hostile_names_are_text(opened: Open) -> None:
    page = opened.page
    for name in HOSTILE:
        page.locator("#query").fill(name.split()[0])
        page.keyboard.press("Enter")
        assert page.locator("#panel p.name").first.text_content() == name
    assert HOSTILE[0] in (page.locator(".pane h2 [title]").first.get_attribute("title") or "")
    assert page.locator("img, iframe, object, embed, [onerror], [onload], i").count() == 0
    assert page.locator("svg:not(.graph):not(.histogram svg)").count() == 0


def test_equal_models_say_that_nothing_changed(browser: Browser, tmp_path: Path) -> None:
    small = encoder()
    file = tmp_path / "equal.html"
    file.write_text(diff_page(diff(small, small)), encoding="utf-8")
    opened = visit(browser, file.as_uri())
    assert opened.page.get_by_text("Nothing changed.").is_visible()
    opened.page.get_by_role("button", name="Only changed").click()
    assert opened.page.locator(".removed, .inserted, .changed").count() == 0
    opened.page.close()
    assert not opened.faults


def test_one_model_alone_is_drawn(browser: Browser, found: Diff, tmp_path: Path) -> None:
    file = tmp_path / "view.html"
    file.write_text(model_page(found.before, found.costs[0]), encoding="utf-8")
    opened = visit(browser, file.as_uri())
    assert opened.page.locator(".pane").count() == 1
    assert opened.page.get_by_text("Only changed").is_hidden()
    opened.box("layers ").click()
    assert opened.box("layer 8").is_visible()
    opened.page.close()
    assert not opened.faults


def test_a_model_of_twenty_thousand_nodes_opens_folded(browser: Browser, tmp_path: Path) -> None:
    snapshot = of_model(chain(20_000), "large")
    file = tmp_path / "large.html"
    file.write_text(model_page(snapshot, Cost(20_000, 0, 0, 0, 0)), encoding="utf-8")
    opened = visit(browser, file.as_uri())
    assert opened.page.locator(".boxes .box").count() < 100
    opened.page.get_by_role("button", name="Unfold all").click()
    assert "blocks stay folded" in opened.page.get_by_role("status").inner_text()
    opened.page.close()
    assert not opened.faults


def chain(length: int) -> ir.Model:
    """Return a model of nodes in a row."""
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([4]))
    inputs, nodes = [value], []
    for index in range(length):
        nodes.append(ir.node("Relu" if index % 2 else "Neg", [value], name=f"/part{index // 500}/{index}"))
        value = nodes[-1].outputs[0]
        value.name = f"v{index}"
    value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([4])
    return ir.Model(ir.Graph(inputs, [value], nodes=nodes, opset_imports={"": 20}, name="chain"), ir_version=10)
