"""Saved models come back bit for bit, cut unevenly or not; damaged and foreign files are refused, and nothing is unpickled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tokenizers
import torch
import transformers
from torch import nn

from ffc.errors import CannotApplyError, InputError, UsageError
from ffc.pruning import LayerPlan, Plan
from ffc.train.learning.activation import Annealing, relu_for_gelu
from ffc.train.models.checkpoint import CONFIG, RECORD, WEIGHTS, save_pruned
from ffc.train.models.layers import find_layers
from ffc.train.models.loading import load
from ffc.train.models.slicing import apply
from ffc.train.models.span_classifier import SpanClassifier
from tests import encoders
from tests.encoders import FFN, HEADS, Kind
from tests.train.models.test_layers import SMALL
from tests.train.models.test_slicing import KINDS, SCALED, UNEVEN, encoder, outputs, rows, trained


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models are alike bit for bit, in class, weights, types and outputs."""
    ours, theirs = one.state_dict(), other.state_dict()
    assert type(one) is type(other) and list(ours) == list(theirs)
    assert all(ours[name].dtype == theirs[name].dtype for name in ours)
    batch = rows("holed")
    if isinstance(one, SpanClassifier):
        batch["spans"] = torch.tensor([[[1, 3], [4, 5]]] * 3)
    alike = all(torch.equal(ours[name], theirs[name]) for name in ours)
    return alike and torch.equal(outputs(one.eval(), batch), outputs(other, batch))


def of_class(prefix: str, name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    sizes = {**SMALL, "vocab_size": encoders.VOCABULARY, "num_hidden_layers": 3, "intermediate_size": FFN}
    model: nn.Module = getattr(transformers, f"{prefix}{name}")(
        getattr(transformers, f"{prefix}Config")(**sizes, **options)
    )
    encoders.perturb(model, 0, zero_biases=False)
    return model.eval()


def spans() -> nn.Module:
    torch.manual_seed(0)
    config = encoder("bert").config
    assert isinstance(config, transformers.BertConfig)
    config.ffc_spans, config.ffc_task = 2, "wic"
    model = SpanClassifier.from_config(config).eval()
    encoders.perturb(model, 0, zero_biases=False)
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "without a head or pooler": lambda: encoder("bert", head=False),
    "weights tied": lambda: of_class("Bert", "ForMaskedLM"),
    "half precision": lambda: encoder("bert").half(),
    "a span head": spans,
}


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_any_shape_come_back_bit_for_bit(kind: Kind, tmp_path: Path) -> None:
    model = encoder(kind)
    for number, it in enumerate((model, apply(model, UNEVEN), apply(model, SCALED))):
        save_pruned(it, tmp_path / str(number))
        assert same(it, load(tmp_path / str(number)))


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_other_models_come_back_bit_for_bit(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = apply(make(), UNEVEN)
    save_pruned(model, tmp_path)
    assert same(model, load(tmp_path))


def test_an_encoder_that_surgery_does_not_understand_comes_back_whole(tmp_path: Path) -> None:
    model = of_class("Albert", "ForSequenceClassification", embedding_size=16)
    save_pruned(model, tmp_path)
    assert same(model, load(tmp_path))


@pytest.mark.parametrize("make", [lambda: encoder("distilbert"), spans], ids=["its own head", "a span head"])
def test_relu_in_place_of_gelu_comes_back(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = make()
    before = [type(module) for module in model.modules()].count(nn.ReLU)
    assert relu_for_gelu(model) == 3
    model = apply(model, UNEVEN)
    save_pruned(model, tmp_path)
    loaded = load(tmp_path)
    assert [type(module) for module in loaded.modules()].count(nn.ReLU) == before + 3
    assert same(model, loaded)


def test_an_activation_that_the_config_does_not_state_comes_back(tmp_path: Path) -> None:
    model = encoder("bert")
    model.set_submodule("bert.encoder.layer.1.intermediate.intermediate_act_fn", nn.ReLU())
    save_pruned(model, tmp_path)
    assert record(tmp_path)["activations"] == {"bert.encoder.layer.1.intermediate.intermediate_act_fn": "relu"}
    assert same(model, load(tmp_path))


def test_training_goes_on_after_loading(tmp_path: Path) -> None:
    smaller = apply(encoder("bert"), UNEVEN)
    save_pruned(smaller, tmp_path)
    ours, theirs = trained(smaller.eval()), trained(load(tmp_path))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_loading_leaves_the_random_state_and_the_saved_model_alone(tmp_path: Path) -> None:
    model = encoder("bert")
    config = model.config.to_dict()
    save_pruned(model, tmp_path)
    assert model.config.to_dict() == config
    state = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_record_states_the_shape_the_task_and_its_labels(tmp_path: Path) -> None:
    model = encoder("bert")
    model.config.ffc_task, model.config.id2label = "cb", {0: "yes", 1: "no", 2: "perhaps"}
    save_pruned(apply(model, UNEVEN), tmp_path)
    found = record(tmp_path)
    assert sorted(found.pop("files")) == [CONFIG, WEIGHTS]
    assert found == {
        "format": "ffc.checkpoint/1",
        "class": "BertForSequenceClassification",
        "layers": [{"heads": 3, "units": 67}, {"heads": 1, "units": FFN}, {"heads": HEADS, "units": 3}],
        "task": "cb",
        "labels": ["yes", "no", "perhaps"],
    }
    loaded = load(tmp_path)
    assert (loaded.config.ffc_task, loaded.config.id2label) == ("cb", {0: "yes", 1: "no", 2: "perhaps"})


def test_transformers_itself_loads_what_was_not_cut(tmp_path: Path) -> None:
    model = encoder("electra")
    save_pruned(model, tmp_path)
    assert same(model, transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval())


@pytest.mark.parametrize("head", [True, False], ids=["with a head", "without a head or pooler"])
def test_a_folder_of_transformers_loads_as_its_own_architecture(head: bool, tmp_path: Path) -> None:
    model = encoder("bert", head=head)
    model.save_pretrained(tmp_path)
    assert same(model, load(tmp_path))


def test_the_tokenizer_is_saved_beside_the_model(tmp_path: Path) -> None:
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "good": 1}, unk_token="[UNK]"))
    save_pruned(
        encoder("bert"), tmp_path, transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    )
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).convert_tokens_to_ids(["good", "bad"]) == [1, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        CONFIG,
        RECORD,
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_saving_again_replaces_the_model(tmp_path: Path) -> None:
    save_pruned(apply(encoder("bert"), UNEVEN), tmp_path)
    save_pruned(apply(encoder("bert"), SCALED), tmp_path)
    assert same(apply(encoder("bert"), SCALED), load(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, RECORD, WEIGHTS]


def test_links_are_followed_to_the_folder_and_in_it(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("elsewhere")
    save_pruned(apply(encoder("bert"), UNEVEN), tmp_path / "out")
    (tmp_path / "elsewhere" / WEIGHTS).rename(tmp_path / "weights")
    (tmp_path / "elsewhere" / WEIGHTS).symlink_to("../weights")
    save_pruned(apply(encoder("bert"), SCALED), tmp_path / "out")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "elsewhere" / WEIGHTS).is_symlink()
    assert same(apply(encoder("bert"), SCALED), load(tmp_path / "out"))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["elsewhere", "out", "weights"]


def record(folder: Path) -> Any:
    return json.loads((folder / RECORD).read_text())


def change(name: str, **values: Any) -> Callable[[Path], None]:
    """Return what changes fields of a JSON file; None takes a field out."""

    def work(folder: Path) -> None:
        content = json.loads((folder / name).read_text()) | values
        (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return work


def change_layer(**values: Any) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        layers = record(folder)["layers"]
        change(RECORD, layers=[layers[0] | values, *layers[1:]])(folder)

    return work


def truncate(name: str) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-7])

    return work


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-100] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def pickle_the_weights(folder: Path) -> None:
    torch.save(safetensors.torch.load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    (folder / RECORD).unlink()


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "cannot read model.safetensors"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), "it has no config.json"),
    "no record": (
        lambda folder: (folder / RECORD).unlink(),
        "another shape than config.json states; a pruned model needs its ffc.json",
    ),
    "weights cut short": (truncate(WEIGHTS), "model.safetensors is not the file that ffc.json was saved with"),
    "a bit of the weights": (flip_a_bit, "model.safetensors is not the file that ffc.json was saved with"),
    "another config": (change(CONFIG, hidden_size=48), "config.json is not the file that ffc.json was saved with"),
    "record cut short": (truncate(RECORD), "ffc.json is damaged or of another format"),
    "record of another format": (
        change(RECORD, format="ffc.checkpoint/9"),
        "ffc.json is damaged or of another format: format",
    ),
    "record without a format": (change(RECORD, format=None), "ffc.json is damaged or of another format: format"),
    "record with more in it": (change(RECORD, extra=1), "ffc.json is damaged or of another format: extra"),
    "record without hashes": (change(RECORD, files={}), "is not the file that ffc.json was saved with"),
    "a class that is none": (
        change(RECORD, **{"class": "BertForNothing"}),
        "'BertForNothing' is no model of this transformers",
    ),
    "a function for a class": (change(RECORD, **{"class": "pipeline"}), "'pipeline' is no model of this transformers"),
    "a class for other configs": (
        change(RECORD, **{"class": "RobertaModel"}),
        "RobertaModel does not go with a config of type 'bert'",
    ),
    "another class": (change(RECORD, **{"class": "BertModel"}), "model.safetensors holds 'bert.embeddings"),
    "more heads than the config": (change_layer(heads=9), "ffc.json states 9 heads for layer 0 and the config 4"),
    "other heads than the weights": (change_layer(heads=2), "expected"),
    "no heads": (change_layer(heads=0), "layers.0.heads"),
    "planes where there are none": (change_layer(planes=[0, 1, 2]), "do not fit"),
    "other layers": (change(RECORD, layers=[{"heads": 1, "units": 1}]), "ffc.json states 1 layers and the config 3"),
    "a module that is none": (change(RECORD, without=["bert.nothing"]), "ffc.json names the module 'bert.nothing'"),
    "an activation that is none": (
        change(RECORD, activations={"bert": "bump"}),
        "ffc.json names the activation 'bump'",
    ),
    "a part that the weights have": (change(RECORD, without=["bert.pooler"]), "holds 'bert.pooler"),
    "pickled weights": (pickle_the_weights, "it has no model.safetensors; weights in other files are not read"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_pruned(apply(encoder("bert"), UNEVEN), folder)
    return folder


@pytest.mark.parametrize(("damage", "why"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_and_foreign_files_are_refused(
    damage: Callable[[Path], None], why: str, saved: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(saved, tmp_path / "copy")
    load(folder)
    damage(folder)
    with pytest.raises(InputError, match=why) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        "{}",
        '{"model_type": "none"}',
        '{"model_type": "bert", "hidden_size": "wide", "architectures": ["BertModel"]}',
        '{"model_type": "bert"}',
    ],
)
def test_a_config_that_is_none_is_refused(config: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(config)
    with pytest.raises(InputError, match="cannot load"):
        load(tmp_path)


def test_a_folder_of_transformers_without_all_weights_is_refused(tmp_path: Path) -> None:
    encoder("bert").save_pretrained(tmp_path)
    state = safetensors.torch.load_file(tmp_path / WEIGHTS)
    del state["classifier.weight"]
    safetensors.torch.save_file(state, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match=r"lack 'classifier\.weight'"):
        load(tmp_path)


def test_code_that_a_folder_brings_along_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')")
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}, "architectures": ["Own"]}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match="cannot load"):
        load(tmp_path)
    assert not (tmp_path / "was-run").exists()


def test_a_model_of_another_class_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(CannotApplyError, match="a Sequential cannot be saved"):
        save_pruned(nn.Sequential(encoder("bert")), tmp_path)


def test_a_model_with_parts_of_its_own_is_not_saved(tmp_path: Path) -> None:
    model = encoder("bert")
    Annealing(model, 0.5)
    with pytest.raises(
        CannotApplyError, match=r"'bert\.encoder\.layer\.0\.intermediate\.intermediate_act_fn' is not what its class"
    ):
        save_pruned(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        save_pruned(encoder("bert"), tmp_path / "file")


def test_a_cut_model_keeps_its_shape_when_cut_and_saved_again(tmp_path: Path) -> None:
    once = apply(encoder("mpnet"), UNEVEN)
    save_pruned(once, tmp_path)
    kept = Plan(layers=(LayerPlan(heads=(0, 2)), LayerPlan(units=(0, 7)), LayerPlan(units=(0, 2))))
    twice = apply(load(tmp_path), kept)
    save_pruned(twice, tmp_path)
    loaded = load(tmp_path)
    assert same(twice, loaded)
    assert [(layer.heads, layer.units) for layer in find_layers(loaded)] == [(2, 67), (1, 2), (HEADS, 2)]
