"""Other encoders of transformers: small random ones of every type that exports, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tests import encoders

if TYPE_CHECKING:
    import torch

LAYERS = 2
Exporter = Literal["dynamo", "TorchScript"]

_TEXT = ("input_ids", "attention_mask")
_BOXES = ("input_ids", "bbox", "attention_mask")
_PIXELS = ("pixel_values",)
_WAVES = ("input_values",)

_USUAL = {
    "hidden_size": encoders.HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": encoders.HEADS,
    "intermediate_size": encoders.FFN,
    "vocab_size": encoders.VOCABULARY,
    "max_position_embeddings": encoders.POSITIONS,
}
_IMAGE = {"image_size": 32, "patch_size": 8}
_SOUND = {
    "conv_dim": [32] * 3, "conv_kernel": [5, 3, 3], "conv_stride": [3, 2, 2], "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
_SEQUENCES = {
    "d_model": encoders.HIDDEN, "encoder_layers": LAYERS, "decoder_layers": 1, "encoder_attention_heads": encoders.HEADS,
    "decoder_attention_heads": encoders.HEADS, "encoder_ffn_dim": encoders.FFN, "decoder_ffn_dim": encoders.FFN,
    "vocab_size": encoders.VOCABULARY,
}  # fmt: skip
_XLM = {"emb_dim": encoders.HIDDEN, "n_layers": LAYERS, "n_heads": encoders.HEADS, "vocab_size": encoders.VOCABULARY}


@dataclass(frozen=True)
class Other:
    """An encoder type of transformers.

    Attributes:
        name: What the table calls it.
        prefix: The prefix of its classes.
        own: What its configuration has beside the usual sizes.
        inputs: What it takes.
        sizes: The usual sizes, where they are called otherwise or are others.
        kind: How the name of its class ends.
        attentions: How many attentions are fused; None for those that have none of the scaled product.
        exporter: What writes it.
        why: What is said of attention that is not fused.
    """

    name: str
    prefix: str
    own: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = _TEXT
    sizes: Mapping[str, Any] | None = None
    kind: str = "Model"
    attentions: int = LAYERS
    exporter: Exporter = "dynamo"
    why: str = ""


_RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_ROTARY = {"position_embedding_type": "rotary"}
_SMALL_VOCABULARY = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

OTHERS = (
    Other("ALBERT", "Albert", {"embedding_size": 40}),
    Other("AltCLIP text", "AltCLIPText"),
    Other("BART encoder", "Bart", sizes={**_SEQUENCES, "max_position_embeddings": encoders.POSITIONS}),
    Other("BEiT", "Beit", {**_IMAGE, "use_relative_position_bias": True}, _PIXELS, exporter="TorchScript"),
    Other("BigBird, full attention", "BigBird", {"attention_type": "original_full"}),
    Other("BLIP text", "BlipText", {"is_decoder": False}),
    Other("CamemBERT", "Camembert"),
    Other("CANINE", "Canine", attentions=LAYERS + 2),
    Other("Chinese-CLIP text", "ChineseCLIPText"),
    Other("CLAP text", "ClapText"),
    Other("CLIP text", "CLIPText"),
    Other("CLIP vision", "CLIPVision", _IMAGE, _PIXELS),
    Other("ConvBERT", "ConvBert", {"embedding_size": 40}),
    Other("Data2Vec text", "Data2VecText"),
    Other("DeBERTa", "Deberta", {**_RELATIVE, "max_relative_positions": 16}),
    Other(
        "DeBERTa-v2", "DebertaV2",
        {**_RELATIVE, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    ),
    Other("DeiT", "DeiT", _IMAGE, _PIXELS),
    Other("DINOv2", "Dinov2", _IMAGE, _PIXELS),
    Other("DPR", "DPR", kind="QuestionEncoder"),
    Other("ERNIE", "Ernie"),
    Other("ESM", "Esm", {"pad_token_id": 1, "mask_token_id": 2}),
    Other("ESM, rotary", "Esm", {"pad_token_id": 1, "mask_token_id": 2, **_ROTARY}),
    Other("EuroBERT, grouped keys", "EuroBert", {**_SMALL_VOCABULARY, "num_key_value_heads": 2}),
    Other("Flaubert", "Flaubert", sizes={**_XLM, "max_position_embeddings": encoders.POSITIONS}),
    Other("FNet", "FNet", inputs=("input_ids",), attentions=0),
    Other("GroupViT text", "GroupViTText"),
    Other("HuBERT", "Hubert", _SOUND, _WAVES),
    Other("I-BERT", "IBert"),
    Other("LayoutLM", "LayoutLM", {"max_2d_position_embeddings": 64}, _BOXES),
    Other(  # the other exporter refuses it, for a view of what is transposed (torch 2.13)
        "LayoutLMv3", "LayoutLMv3",
        {"visual_embed": False, "max_2d_position_embeddings": 64, "coordinate_size": 16, "shape_size": 16}, _BOXES,
        exporter="TorchScript",
    ),
    Other("LiLT", "Lilt", {"channel_shrink_ratio": 4, "max_2d_position_embeddings": 64}, _BOXES, attentions=1),
    Other("LUKE", "Luke", {"use_entity_aware_attention": False, "entity_vocab_size": 20, "entity_emb_size": 16}),
    Other("MarkupLM", "MarkupLM"),
    Other("Megatron-BERT", "MegatronBert"),
    Other("MobileBERT", "MobileBert", {"embedding_size": 32, "intra_bottleneck_size": 64}),
    Other("ModernBERT", "ModernBert", {"pad_token_id": 0, "local_attention": 8, "global_attn_every_n_layers": 2}),
    Other("MRA", "Mra", attentions=0),
    Other("NomicBERT", "NomicBert"),
    Other("RemBERT", "RemBert", {"input_embedding_size": 40}),
    Other("RoBERTa, norms first", "RobertaPreLayerNorm"),
    Other("RoFormer", "RoFormer", {"embedding_size": 40}),
    Other("SigLIP text", "SiglipText"),
    Other("SigLIP vision", "SiglipVision", _IMAGE, _PIXELS),
    Other("Splinter", "Splinter"),
    Other(
        "SqueezeBERT", "SqueezeBert",
        {"embedding_size": encoders.HIDDEN, **{f"{part}_groups": 4 for part in ("q", "k", "v")}},
    ),
    Other(
        "T5 encoder", "T5", kind="EncoderModel", exporter="TorchScript",
        sizes={"d_model": 96, "d_kv": 24, "num_layers": LAYERS, "num_heads": 4, "d_ff": 200, "vocab_size": 120},
    ),
    Other("TAPAS", "Tapas"),
    Other("VisualBERT", "VisualBert"),
    Other("ViT", "ViT", _IMAGE, _PIXELS),
    Other("wav2vec 2.0", "Wav2Vec2", _SOUND, _WAVES),
    Other(
        "Whisper encoder", "Whisper", inputs=("input_features",),
        sizes={
            **_SEQUENCES, "num_mel_bins": 8, "max_source_positions": 20, "pad_token_id": 0, "bos_token_id": 0,
            "eos_token_id": 0, "decoder_start_token_id": 0,
        },
    ),
    Other("X-MOD", "Xmod", {"languages": ["en"], "default_language": "en"}),
    Other("XLM", "XLM", sizes={**_XLM, "max_position_embeddings": encoders.POSITIONS}),
    Other("XLM-RoBERTa", "XLMRoberta"),
    Other("XLM-RoBERTa-XL", "XLMRobertaXL"),
    Other("YOSO", "Yoso", attentions=0),
)  # fmt: skip


def export(other: Other, folder: Path, exporter: Exporter | None = None) -> Path:
    """Export one encoder and return the path of the file."""
    exporter = exporter or other.exporter
    path = folder / f"{other.name.replace(' ', '-')}-{exporter}.onnx"
    with encoders.minilm_example().quiet():
        model = _Positional(random(other), other.inputs).module
        values = _values(other.inputs)
        (_trace if exporter == "TorchScript" else _export)(model, values, path)
    return path


def random(other: Other) -> torch.nn.Module:
    """Return a random model in evaluation mode, the same each time."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = _USUAL if other.sizes is None else other.sizes
    config = getattr(transformers, f"{other.prefix}Config")(**{**sizes, **other.own})
    model: torch.nn.Module = getattr(transformers, f"{other.prefix}{other.kind}")(config)
    if other.prefix in ("Bart", "Whisper"):
        model = model.get_encoder()  # type: ignore[operator]
    encoders.perturb(model, 0, False)
    return model.eval()


class _Positional:
    """A model that takes its inputs by place and gives its first output alone."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...]) -> None:
        import torch

        class Module(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, *values: torch.Tensor) -> torch.Tensor:
                found: torch.Tensor = self.model(**dict(zip(names, values, strict=True)), return_dict=True)[0]
                return found

        self.module = Module().eval()


def _values(inputs: tuple[str, ...]) -> dict[str, torch.Tensor]:
    import torch

    random = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 100, (2, 12), generator=random)
    known = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "bbox": torch.arange(4).expand(2, 12, 4) + ids[..., None] % 40,
        "pixel_values": torch.randn(2, 3, 32, 32, generator=random),
        "input_values": torch.randn(2, 400, generator=random),
        "input_features": torch.randn(2, 8, 40, generator=random),
    }
    return {name: known[name].contiguous() for name in inputs}


def _varying(value: torch.Tensor) -> dict[int, str]:
    """Return the axes of an input that vary: its batch, and the tokens of a text."""
    return {0: "batch"} if value.is_floating_point() else {0: "batch", 1: "length"}


def _export(model: torch.nn.Module, values: dict[str, torch.Tensor], path: Path) -> None:
    import torch

    dims = {name: torch.export.Dim(name) for name in ("batch", "length")}
    shapes = tuple({axis: dims[name] for axis, name in _varying(value).items()} for value in values.values())
    torch.onnx.export(
        model, tuple(values.values()), path, dynamic_shapes=(shapes,), input_names=list(values), output_names=["out"],
        dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip


def _trace(model: torch.nn.Module, values: dict[str, torch.Tensor], path: Path) -> None:
    import torch

    torch.onnx.export(
        model, tuple(values.values()), str(path), input_names=list(values), output_names=["out"], dynamo=False,
        dynamic_axes={name: _varying(value) for name, value in values.items()}, opset_version=18,
    )  # fmt: skip
