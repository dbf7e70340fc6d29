"""What is to be known of a function stands with its declaration, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import onnx_ir as ir

from ffc.graph.dialect import ops
from ffc.graph.dialect.function import FUNCTIONS, called, register
from tests.checkout import ROOT

DECLARATIONS = ROOT / "ffc" / "graph" / "dialect" / "ops.py"
FILES = [path for part in ("ffc", "passes", "examples") for path in (ROOT / part).rglob("*.py") if path != DECLARATIONS]


def lists_of_names(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """Yield each literal, and each call, that holds the names of two functions or more, and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            parts: list[ast.expr | None] = [*node.elts]
        elif isinstance(node, ast.Dict):
            parts = [*node.keys]
        elif isinstance(node, ast.Call):
            parts = [*node.args]
        else:
            continue
        names = {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}
        if len(names & FUNCTIONS.keys()) > 1:
            yield node.lineno, names


def test_no_file_but_the_declarations_lists_functions_by_name() -> None:
    found = {str(path): list(lists_of_names(ast.parse(path.read_text(encoding="utf-8")))) for path in FILES}
    assert not {path: names for path, names in found.items() if names}


def test_a_list_of_names_would_be_found() -> None:
    text = 'NAMES = ("Norm", "AddNorm")\nPLAIN = {"Linear": 1, "LinearGelu": 2}\nis_call(node, "Embed", "EmbedHalf")\n'
    assert [line for line, _ in lists_of_names(ast.parse(text))] == [1, 2, 3]


def test_products_in_int8_know_the_product_that_they_round_and_the_other_way_round() -> None:
    for plain in (ops.Linear, ops.LinearRelu, ops.LinearGelu):
        for by_row in (False, True):
            stored = plain.rounded("int8", by_row=by_row)
            assert stored is not None and stored.exact is plain
            assert stored.name == plain.name.replace("Linear", "LinearInt8Rows" if by_row else "LinearInt8")
    assert ops.LinearGelu.activated("Relu") is ops.LinearRelu
    assert ops.LinearRelu.activated("") is ops.Linear
    assert ops.Linear.activated("Swish") is None
    assert ops.Norm.rounded("int8") is None


def test_a_function_that_nobody_declared_keeps_the_body_that_the_model_brought() -> None:
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["": 23, "ffc": 1]>
        graph (float[n, 2] x) => (float[n, 2] y) { y = ffc.Twice(x) }
        <opset_import: ["": 23], domain: "ffc"> Twice (x) => (y) { y = Add(x, x) }
    """)
    register(model)
    assert [key[1] for key in model.functions] == ["Twice"]
    assert called(next(iter(model.graph))) is None
