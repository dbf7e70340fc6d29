"""`int8{skip=auto}` finds the products that cost the most accuracy and leaves no more of them in fp32 than the budget asks for."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import ffc
from ffc.cli import main
from ffc.compiler.reports.report import Step
from tests.graphs import Draft, encoder, feeds, masks

INNER, OUTER = 8, 5


def one_bad_product() -> ir.Model:
    """Return a model of three products with equal parts in the output; the last reads an input that one huge column coarsens."""
    draft = Draft()
    x = draft.input("x", "batch", INNER)
    good, fair, bad = (draft.normal(name, INNER, OUTER) for name in ("good", "fair", "bad"))
    contents = bad.const_value.numpy().copy()  # type: ignore[union-attr]
    contents[-1] = 0
    bad.const_value = ir.Tensor(contents, name="bad")
    stretch = np.ones(INNER, np.float32)
    stretch[-1] = 1000
    products = [draft.op.MatMul(x, good), draft.op.MatMul(draft.op.Tanh(x), fair), draft.op.MatMul(draft.op.Mul(x, stretch), bad)]
    for name, product in zip(("good", "fair", "bad"), products, strict=True):
        product.name = f"the_{name}"
    total = draft.op.Add(draft.op.Add(products[0], products[1]), products[2])
    return draft.model({"y": (total, ["batch", OUTER])})


def data(rows: int = 40) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((rows, INNER)).astype(np.float32)}


def step(model: ir.Model, options: str, rows: dict[str, np.ndarray] | None = None) -> Step:
    """Compile with `int8` and return its step, the whole having passed its gates."""
    result = ffc.compile(model, f"int8{{skip=auto {options}}}", data=rows or data())
    return next(found for found in result.report.steps if found.text.startswith("int8"))


def costs(notes: list[str]) -> dict[str, float]:
    """Return what the report says that each product costs, in its order."""
    found = [match for note in notes if (match := re.match(r"(\S+e[-+]\d+) .*?(\w+)(?: \(fp32\))?$", note))]
    return {match[2]: float(match[1]) for match in found}


def test_the_product_that_costs_the_most_is_left_and_no_other() -> None:
    with pytest.raises(ffc.GateError, match=r"below the budget .*; int8\{skip=auto\} with --data .* leaves in fp32 what costs most"):
        ffc.compile(one_bad_product(), "int8{cosine=0.98}", data=data())
    found = step(one_bad_product(), "cosine=0.999")
    assert sum(found.changes.values()) == 2
    assert len(found.skipped) == 1
    assert re.fullmatch(r"other the_bad: left in fp32 by skip=auto: it alone costs \S+ of cosine", found.skipped[0])
    assert found.verdict is not None
    assert found.verdict.cosine >= 0.999
    listed = costs(found.notes)
    assert next(iter(listed)) == "the_bad"
    assert set(listed) == {"the_bad", "the_fair", "the_good"}
    assert sorted(listed.values(), reverse=True) == list(listed.values())
    assert listed["the_bad"] > 20 * listed["the_fair"]
    assert [note for note in found.notes if note.endswith("(fp32)")] == [note for note in found.notes if "the_bad" in note]


def test_where_the_budget_holds_nothing_is_left_and_costs_are_told_all_the_same() -> None:
    found = step(one_bad_product(), "cosine=0.5")
    assert (sum(found.changes.values()), found.skipped) == (3, [])
    assert len(costs(found.notes)) == 3
    assert any("skip=auto leaves 0 of 3 products in fp32" in note for note in found.notes)


def test_a_budget_of_nothing_leaves_everything_and_says_so() -> None:
    found = step(one_bad_product(), "cosine=1")
    assert (found.changes, len(found.skipped)) == ({}, 3)
    assert any("skip=auto leaves 3 of 3 products in fp32; mean cosine 1.0000" in note for note in found.notes)


def test_agreement_is_a_budget_too() -> None:
    found = step(one_bad_product(), "cosine=0.5 agreement=0.99")
    assert {text.split(":")[0] for text in found.skipped} == {"other the_bad"}
    assert found.verdict is not None
    assert found.verdict.agreement is not None
    assert found.verdict.agreement >= 0.99


def test_names_beside_auto_are_left_as_asked_and_not_measured() -> None:
    found = step(one_bad_product(), "cosine=0.999", None).skipped
    both = ffc.compile(one_bad_product(), "int8{skip=the_good,auto cosine=0.999}", data=data()).report.steps
    named = next(each for each in both if each.text.startswith("int8"))
    assert named.skipped[0] == "other the_good: left in fp32 as asked (skip)"
    assert [text.split(":")[0] for text in named.skipped[1:]] == [text.split(":")[0] for text in found] == ["other the_bad"]
    assert set(costs(named.notes)) == {"the_bad", "the_fair"}


def test_products_are_listed_with_role_and_layer() -> None:
    mask = masks(20, 6)["right"]
    found = step(encoder(layers=2), "cosine=0.5", feeds(mask))
    listed = [note for note in found.notes if re.match(r"\S+e[-+]\d+ ", note)]
    for place in ("q of layer 0", "v of layer 1", "attn_out of layer 0", "ffn_in of layer 1", "ffn_out of layer 0", "head"):
        assert sum(f" {place}, " in note for note in listed) == 1
    assert len(listed) == 13
    assert any("on 16 rows, most costly first" in note for note in found.notes), "the first batch ranks"


def test_tables_that_alone_break_the_budget_are_named() -> None:
    mask = masks(4, 6)["full"]
    with pytest.raises(ffc.GateError, match=r"embedding tables in int8 alone bring the mean cosine to .*; leave out embeddings=true"):
        step(encoder(), "embeddings=true cosine=0.9999999", feeds(mask))


def test_tables_that_alone_break_the_budget_stay_where_it_is_left_to_the_search() -> None:
    draft = Draft()
    ids = draft.input("input_ids", "batch", "seq", dtype=ir.DataType.INT64)
    table = np.random.default_rng(0).standard_normal((2048, INNER)).astype(np.float32)
    table[:, 0] = 3000  # coarsens every row; what is read of it is the rest
    weight = np.random.default_rng(1).standard_normal((INNER, OUTER)).astype(np.float32)
    weight[0] = 0
    y = draft.op.MatMul(draft.op.Gather(draft.weight("table", table), ids, axis=0), draft.weight("w", weight))
    rows = {"input_ids": np.arange(40).reshape(4, 10)}
    found = step(draft.model({"y": (y, ["batch", "seq", OUTER])}), "", rows)
    assert found.skipped[0].startswith("embedding tables: left in fp32 by skip=auto: alone they bring the mean cosine to")
    assert "embeddings=false" in found.decided
    assert "embedding tables" not in found.changes


@pytest.mark.parametrize("rows", [True, False])
def test_without_rows_it_is_refused(rows: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, given, out = tmp_path / "m.onnx", tmp_path / "rows.npz", tmp_path / "out.onnx"
    ir.save(one_bad_product(), source)
    np.savez(given, **data())
    more = ["--data", str(given)] if rows else []
    code = main(["compile", str(source), "--passes", "int8{skip=auto}", "-o", str(out), *more])
    error = capsys.readouterr().err
    if rows:
        assert (code, out.is_file()) == (0, True)
    else:
        wanted = "ffc: error: pass 'int8': skip=auto measures products on rows of your own; give them with --data rows.npz\n"
        assert (code, out.exists()) == (2, False)
        assert error.endswith(wanted)


def test_the_choice_is_the_same_every_time() -> None:
    assert step(one_bad_product(), "cosine=0.999").notes == step(one_bad_product(), "cosine=0.999").notes
