"""What a user's own pass does wrong is caught, laid at its door, and never written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import onnx_ir as ir
import pytest

import ffc
from ffc.compiler.library import Library
from tests.graphs import Draft, encoder


@dataclass(frozen=True)
class Foreign(ffc.Pass):
    """Counts one change and does what a subclass says."""

    name = "foreign"

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        log.did("something")
        self.change(model)

    def change(self, model: ir.Model) -> None:
        """Nothing, in this one."""


class Reorders(Foreign):
    def change(self, model: ir.Model) -> None:
        model.graph.outputs.reverse()


class Renames(Foreign):
    def change(self, model: ir.Model) -> None:
        model.graph.outputs[0].name = "other"


class FixesShape(Foreign):
    def change(self, model: ir.Model) -> None:
        model.graph.inputs[0].shape = ir.Shape([1, 4])


class DropsInput(Foreign):
    def change(self, model: ir.Model) -> None:
        model.graph.inputs.pop()


class Raises(Foreign):
    def change(self, model: ir.Model) -> None:
        raise KeyError("weights")


class NoReference(Foreign):
    contract = ffc.EqualToMasked(masked=lambda model: None)  # type: ignore[arg-type, return-value]


class OddContract(Foreign):
    contract = "hello"  # type: ignore[assignment]


class NeedsNothingKnown(Foreign):
    needs: ClassVar[Sequence[str]] = ("fusee",)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (Reorders, ffc.GateError, "pass 'foreign': it changes what the model takes and gives: output"),
        (Renames, ffc.GateError, "pass 'foreign': it changes what the model takes and gives: output"),
        (FixesShape, ffc.GateError, "pass 'foreign': it changes what the model takes and gives: input input_ids"),
        (DropsInput, ffc.CannotApplyError, "pass 'foreign': the result is not valid ONNX: "),
        (Raises, ffc.CannotApplyError, "pass 'foreign' failed with KeyError: 'weights'; the fault is in the pass"),
        (NoReference, ffc.CannotApplyError, "pass 'foreign' failed with AttributeError"),
        (OddContract, ffc.CannotApplyError, "pass 'foreign' failed with"),
        (NeedsNothingKnown, ffc.UsageError, "pass 'foreign' needs 'fusee', which is no pass; did you mean 'fuse'?"),
    ],
)
def test_the_pass_is_named_and_nothing_is_written(
    kind: type[Foreign], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        ffc.compile(encoder(), [kind()], out=tmp_path / "out.onnx")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_passes_that_need_each_other_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import ffc\n"
        + "".join(
            f"class {name}(ffc.Pass):\n    name = '{name.lower()}'\n    needs = ('{need}',)\n    def run(self, model, log): ...\n"
            for name, need in (("One", "other"), ("Other", "one"))
        )
    )
    with pytest.raises(ffc.UsageError, match="passes need each other in a circle: one → other → one"):
        ffc.compile(encoder(), "one", plugins=[str(file)])


def test_a_list_of_texts_and_passes_is_a_pipeline() -> None:
    clean = Library.default()["clean"]()
    assert ffc.compile(encoder(), [clean, "fuse,int8{skip=head}"]).report.pipeline == "clean,fuse,int8{skip=head}"


@pytest.mark.parametrize("passes", [[3], 3, None, [int]])
def test_what_is_no_pass_is_refused(passes: Any) -> None:
    with pytest.raises(ffc.UsageError, match="is no pass; give a pipeline as text, or a list of texts and passes"):
        ffc.compile(encoder(), passes)


@pytest.mark.parametrize("passes", [Foreign, ["fuse", Foreign]])
def test_the_class_of_a_pass_is_no_pass(passes: Any) -> None:
    with pytest.raises(ffc.UsageError, match=r"^Foreign is the class of a pass; give one with its options, Foreign\(\.\.\.\)$"):
        ffc.compile(encoder(), passes)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ffc.UsageError, match=r"a model is a path, bytes, .*, not int"):
        ffc.compile(3, "fuse")  # type: ignore[arg-type]


def test_budgets_do_not_add_up() -> None:
    """A second budget pass may spend its own, but the first one's still holds against the last fp32 model."""
    report = ffc.compile(encoder(), "fuse,int8{skip=q,k,v,ffn_in,ffn_out,head}").report
    first = next(step.verdict for step in report.steps if step.text.startswith("int8"))
    assert first is not None
    tight = f"fuse,int8{{skip=q,k,v,ffn_in,ffn_out,head cosine={first.cosine - 1e-6}}}"
    ffc.compile(encoder(), tight)
    with pytest.raises(ffc.GateError, match="pass 'int8': held to the budget of int8: mean cosine"):
        ffc.compile(encoder(), f"{tight},int8")


def test_an_output_under_two_names_keeps_both() -> None:
    """As exports with hidden states have it: the last hidden state is an output, and so is an Identity of it."""
    draft = Draft()
    x = draft.input("x", "batch", 4)
    y = draft.op.Relu(x)
    model = draft.model({"y": (y, ["batch", 4]), "alias": (draft.op.Identity(y), ["batch", 4])})
    result = ffc.compile(model, "clean").model
    assert [value.name for value in result.graph.outputs] == ["y", "alias"]
