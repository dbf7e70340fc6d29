"""An exported model gives what torch gives at every size, takes only what it needs, and compiles with proofs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import transformers
from torch import nn

import ffc
from ffc.errors import CannotApplyError, GateError, InputError
from ffc.graph.execute import Runner
from ffc.pruning.plan import LayerPlan, Plan
from ffc.train import exportable
from ffc.train.encoding import Collator, Row, Rows
from ffc.train.evaluate import predict, predict_onnx, session
from ffc.train.export import export, exported, inputs
from ffc.train.models import pretrained
from ffc.train.models.digest import digest
from ffc.train.models.pooling import MODES
from ffc.train.models.slicing import apply
from ffc.train.models.span_classifier import SpanClassifier
from ffc.train.parity import check, example
from ffc.train.tasks.base import Example, Task
from tests.encoders import FFN, Kind, perturb, random_model
from tests.train.sentence_folders import TANH, save_sentences
from tests.train.tiny import save_model

SINGLE = Task("moods", ("bad", "fair", "good"), "accuracy", (Example("good", label=2), Example("bad", label=0)), ())
PAIRS = replace(SINGLE, validation=(Example("good", "bad", label=1),))
CUT = Plan(
    layers=(
        LayerPlan(heads=(0, 2, 3), units=tuple(range(0, FFN, 3))),
        LayerPlan(heads=(1,), units=tuple(range(50))),
    )
)


class Exported:
    """A model and the graph that was made of it."""

    def __init__(self, model: nn.Module, path: Path, **options: Any) -> None:
        self.model, self.path = model, path
        self.before = {name: value.clone() for name, value in model.state_dict().items()}
        assert export(model, path, **options) == path
        self.graph = ir.load(path)


def random(kind: Kind, *, head: bool = True) -> Any:
    model = random_model(kind, 2, 0, head, "eager" if kind == "mpnet" else "sdpa")
    perturb(model, 0, False)
    return model


def with_spans(kind: Kind) -> SpanClassifier:
    encoder = random(kind, head=False)
    encoder.config.ffc_spans, encoder.config.id2label = 2, {0: "other", 1: "same"}
    encoder.config.ffc_task = "uses"
    torch.manual_seed(0)
    return SpanClassifier(encoder.config, encoder).eval()


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A classifier of single texts, pruned unevenly, left in training mode."""
    model = apply(random("bert"), CUT).train()
    note = {"data": "made up"}
    return Exported(model, tmp_path_factory.mktemp("cut") / "deep" / "cut.onnx", task=SINGLE, provenance=note)


@pytest.fixture(scope="module")
def spanned(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A head on spans, on an encoder that counts positions by what is no padding."""
    return Exported(with_spans("roberta"), tmp_path_factory.mktemp("spans") / "spans.onnx")


def changes(result: ffc.Result, name: str) -> dict[str, int]:
    return next(step.changes for step in result.report.steps if step.text.partition("{")[0] == name)


def rows_for(model: Any, names: Sequence[str], count: int = 11) -> Rows:
    """Return rows of many lengths."""
    made: list[Row] = []
    for index in range(count):
        batch = example(model, names, 1, 1 + index * 5 % 31)
        made.append({name: values[0].tolist() for name, values in batch.items()} | {"index": index})
    return Rows(made, (), 40)


# What it takes and says


def test_inputs_are_only_those_that_the_model_and_its_task_need(tmp_path: Path) -> None:
    bert, distilbert = random("bert"), random("distilbert")
    tokenizer = pretrained.tokenizer(save_model(tmp_path))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    two = ("input_ids", "attention_mask")
    assert inputs(distilbert) == inputs(bert, SINGLE) == inputs(bert, PAIRS, tokenizer) == two
    assert inputs(bert) == inputs(bert, PAIRS) == (*two, "token_type_ids")
    assert inputs(bert, replace(SINGLE, train=())) == (*two, "token_type_ids")
    assert inputs(with_spans("distilbert")) == (*two, "spans")


def test_batch_and_length_are_free_and_the_output_is_named(cut: Exported, spanned: Exported) -> None:
    graph = cut.graph.graph
    assert [(value.name, str(value.shape)) for value in graph.inputs] == [
        ("input_ids", "[batch,length]"),
        ("attention_mask", "[batch,length]"),
    ]
    assert [(value.name, str(value.shape)) for value in graph.outputs] == [("logits", "[batch,3]")]
    assert [(value.name, str(value.shape)) for value in spanned.graph.graph.inputs][2:] == [
        ("token_type_ids", "[batch,length]"),
        ("spans", "[batch,2,2]"),
    ]
    assert all(value.dtype == ir.DataType.INT64 for value in spanned.graph.graph.inputs)
    assert [path.name for path in cut.path.parent.iterdir()] == ["cut.onnx"]


def test_the_metadata_say_task_labels_and_provenance(cut: Exported, spanned: Exported) -> None:
    notes = cut.graph.metadata_props
    assert notes["ffc.task"] == "moods" and json.loads(notes["ffc.labels"]) == ["bad", "fair", "good"]
    told = json.loads(notes["ffc.provenance"])
    assert told["data"] == "made up" and told["torch"] == torch.__version__ and told["ffc"] == ffc.__version__
    assert told["weights"] == digest(cut.model) and len(told["weights"]) == 64
    assert spanned.graph.metadata_props["ffc.task"] == "uses"
    assert json.loads(spanned.graph.metadata_props["ffc.labels"]) == ["other", "same"]


def test_the_digest_is_that_of_the_weights() -> None:
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert digest(one) == digest(other)
    other.weight.data[0, 0] += 1
    assert digest(one) != digest(other)
    assert digest(one) != digest(one.to(torch.bfloat16))


def test_a_type_that_is_constant_is_folded_away(cut: Exported) -> None:
    tables = {name for name in cut.graph.graph.initializers if "embeddings" in name and "LayerNorm" not in name}
    assert not any("token_type" in name for name in tables)
    assert sum(node.op_type == "Gather" and "embedding" in node.outputs[0].name for node in cut.graph.graph) == 2


def test_the_model_is_left_as_it_was(cut: Exported) -> None:
    assert cut.model.training
    after = cut.model.state_dict()
    assert after.keys() == cut.before.keys() and all(torch.equal(after[name], cut.before[name]) for name in after)
    assert all(parameter.requires_grad for parameter in cut.model.parameters())


# What it computes


@pytest.mark.parametrize("size", [1, 4, 64])
def test_onnxruntime_gives_what_torch_gives_in_row_order(
    cut: Exported, spanned: Exported, size: int, tmp_path: Path
) -> None:
    collator = Collator(pretrained.tokenizer(save_model(tmp_path)))
    for each in (cut, spanned):
        rows = rows_for(each.model, [value.name for value in each.graph.graph.inputs])
        wanted = predict(each.model, rows, collator)
        found = predict_onnx(each.path, rows, collator, batch_size=size)
        assert found.dtype == np.float32 and found.shape == wanted.shape
        assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
        assert np.abs(wanted - wanted[::-1]).max() > 1e-2


def test_a_graph_that_gives_something_else_is_refused(cut: Exported) -> None:
    names = ("input_ids", "attention_mask")
    model = apply(random("bert"), CUT)
    check(model, cut.graph, names)
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if name == "classifier.bias")[0] += 0.01
    with pytest.raises(GateError, match=r"differs from torch by .* nothing was written"):
        check(model, cut.graph, names)


def test_a_graph_for_one_size_is_refused(cut: Exported) -> None:
    graph = cut.graph.clone()
    graph.graph.inputs[0].shape = ir.Shape([2, "length"])
    with pytest.raises(CannotApplyError, match="the exported model fails on full rows 1x1"):
        check(apply(random("bert"), CUT), graph, ("input_ids", "attention_mask"))


def test_what_torch_cannot_export_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("how to debug torch") from ValueError("a way depends\non numbers")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(CannotApplyError) as caught:
        export(random("distilbert"), tmp_path / "out" / "model.onnx")
    assert str(caught.value) == "torch cannot export this distilbert model: a way depends on numbers"
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_with_more_words_than_the_model_is_refused(tmp_path: Path) -> None:
    tokenizer = pretrained.tokenizer(save_model(tmp_path, words=[f"w{index}" for index in range(200)]))
    with pytest.raises(InputError, match="the tokenizer makes 205 ids and the model has embeddings for 120"):
        export(random("bert"), tmp_path / "model.onnx", tokenizer=tokenizer)


# What the compiler makes of it


def test_a_pruned_classifier_compiles_whole_and_keeps_its_metadata(cut: Exported) -> None:
    result = ffc.compile(cut.path, "fuse,deadtokens,int8")
    found = changes(result, "fuse")
    assert found["attention"] == 2 and found["linear-gelu"] == 2
    assert found["norm"] == 5 and found["add-norm"] == 4  # the first norm is that of the embeddings
    notes = result.model.metadata_props
    for key in ("ffc.task", "ffc.labels", "ffc.provenance"):
        assert notes[key] == cut.graph.metadata_props[key]


def test_a_head_on_spans_is_fused_and_quantised_with_proofs_on_spans_that_hold_tokens(spanned: Exported) -> None:
    for pipeline in ("fuse", "fuse,int8"):
        result = ffc.compile(spanned.path, pipeline)
        assert result.report.steps[2].verdict is not None and result.report.steps[2].verdict.difference < 1e-4
        found = changes(result, "fuse")
        assert found["attention"] == 2 and found["embed"] == 1
    assert changes(result, "int8")["head"] == 1


# Files that onnxruntime cannot take


def test_what_is_no_model_and_rows_that_lack_an_input_are_refused(spanned: Exported, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    for path in (tmp_path / "model.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(InputError, match="onnxruntime cannot load"):
            session(path)
    rows = rows_for(spanned.model, ["input_ids", "attention_mask"], 2)
    with pytest.raises(InputError, match="takes an input 'spans', the rows have"):
        predict_onnx(spanned.path, rows, Collator(pretrained.tokenizer(save_model(tmp_path / "t"))))


def test_rows_on_which_a_model_fails_are_refused(spanned: Exported, tmp_path: Path) -> None:
    ids = [5] * 80  # beyond its positions
    row = {"input_ids": ids, "attention_mask": [1] * 80, "token_type_ids": [0] * 80, "spans": [[1, 2], [3, 4]]}
    rows = Rows([row], [Example("text")], 80)
    with pytest.raises(InputError, match="the model does not run on rows 1x80: "):
        predict_onnx(spanned.path, rows, Collator(pretrained.tokenizer(save_model(tmp_path))))


def test_rows_without_token_types_are_of_type_0(spanned: Exported, tmp_path: Path) -> None:
    collator = Collator(pretrained.tokenizer(save_model(tmp_path)))
    rows = rows_for(spanned.model, ["input_ids", "attention_mask", "spans"], 4)
    assert "token_type_ids" not in rows[0]
    found = predict_onnx(spanned.path, rows, collator)
    assert np.abs(found - predict(spanned.model, rows, collator)).max() < 1e-4 * np.abs(found).max()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["classifier", "spans", "bare", "pruned"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "mpnet"])
def test_every_kind_exports_and_is_fused(kind: Kind, what: str, tmp_path: Path) -> None:
    made = {"spans": with_spans, "pruned": lambda kind: apply(random(kind), CUT)}
    model = made[what](kind) if what in made else random(kind, head=what == "classifier")
    result = ffc.compile(export(model, tmp_path / "model.onnx"), "fuse")
    assert changes(result, "fuse")["attention"] == 2
    assert [value.name for value in result.model.graph.outputs] == ["last_hidden_state" if what == "bare" else "logits"]


# Heads


SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
LABELS = ["LABEL_0", "LABEL_1", "LABEL_2"]
HEADS: dict[str, tuple[str, dict[str, str], list[str] | None]] = {
    "BertForTokenClassification": ("token-classification", {"logits": "[batch,length,3]"}, LABELS),
    "BertForQuestionAnswering": ("question-answering", {"start_logits": "[batch,length]", "end_logits": "[batch,length]"}, None),
    "BertForMaskedLM": ("fill-mask", {"logits": "[batch,length,60]"}, None),
    "BertModel": ("feature-extraction", {"last_hidden_state": "[batch,length,32]"}, None),
    "BertForSequenceClassification": ("text-classification", {"logits": "[batch,3]"}, LABELS),
}  # fmt: skip


def headed(name: str) -> Any:
    """Return a random model whose answers depend on its inputs: the weights that it begins with are small."""
    torch.manual_seed(0)
    ends = 2 if "Answering" in name else 3
    model = getattr(transformers, name)(transformers.BertConfig(num_labels=ends, max_position_embeddings=40, **SIZES))
    perturb(model, 0, False)
    return model.eval()


def worst(model: nn.Module, graph: ir.Model) -> float:
    """Return the largest difference from torch at real tokens, relative to the scale, on masks of every kind."""
    runner, names, found = Runner(graph), [str(value.name) for value in graph.graph.inputs], 0.0
    for kind in ("full", "right-padded", "left-padded", "holed"):
        batch = example(model, names, 3, 11, kind)
        with torch.no_grad():
            wanted = model(**batch)
        real = batch["attention_mask"].numpy() > 0
        for name, value in runner.run({name: each.numpy() for name, each in batch.items()}).items():
            one, other = wanted[name].numpy(), value
            if one.shape[:2] == real.shape:
                one, other = one[real], other[real]
            found = max(found, float(np.abs(one - other).max() / np.abs(one).max()))
    return found


@pytest.mark.parametrize("name", HEADS)
def test_every_head_gives_what_torch_gives_and_says_what_it_is_for(name: str) -> None:
    task, outputs, labelled = HEADS[name]
    model = headed(name)
    graph = exported(model)
    assert {str(value.name): str(value.shape) for value in graph.graph.outputs} == outputs
    assert graph.metadata_props["ffc.task"] == task
    assert json.loads(graph.metadata_props.get("ffc.labels", "null")) == labelled
    fused = ffc.compile(graph, "fuse")
    assert changes(fused, "fuse")["attention"] == 2 and worst(model, fused.model) < 1e-4
    small = ffc.compile(graph, "fuse,int8")
    assert changes(small, "int8") and worst(model, small.model) < 0.3


def test_a_sentence_is_pooled_in_the_graph_in_every_way(tmp_path: Path) -> None:
    over = {"in_features": 192, "out_features": 16, "bias": True, "activation_function": TANH}
    steps = [("Pooling", {"pooling_mode": list(MODES)}), ("Dense", over), ("Normalize", {})]
    found = exportable.read(save_sentences(tmp_path, steps))
    perturb(found.model, 0, False)
    graph = exported(found.model, tokenizer=found.tokenizer)
    assert [(value.name, str(value.shape)) for value in graph.graph.outputs] == [
        ("sentence_embedding", "[batch,16]"),
        ("token_embeddings", "[batch,length,32]"),
    ]
    assert graph.metadata_props["ffc.task"] == "sentence-similarity" and "ffc.labels" not in graph.metadata_props
    assert worst(found.model, ffc.compile(graph, "fuse").model) < 1e-4
    assert worst(found.model, ffc.compile(graph, "fuse,int8").model) < 0.3


def test_a_head_whose_use_is_not_known_is_refused_in_a_line() -> None:
    with pytest.raises(CannotApplyError, match=r"a BertForPreTraining puts out prediction_logits, .*; name a model that"):
        exported(headed("BertForPreTraining"))


def test_a_decoder_that_keeps_a_cache_is_told_how_to_go_without() -> None:
    sizes = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}
    with pytest.raises(CannotApplyError, match=r"a GPT2LMHeadModel puts out a cache .*; set use_cache to false in its config\.json"):
        exported(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)))


def test_a_model_that_wants_other_rows_is_refused_in_a_line() -> None:
    with pytest.raises(CannotApplyError, match=r"^a BertForMultipleChoice does not run on rows of input_ids and .*; name a") as caught:
        exported(headed("BertForMultipleChoice"))
    assert "\n" not in str(caught.value)
