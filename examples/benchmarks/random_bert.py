"""Random encoders of any size, exported as a user would export a trained one."""

from __future__ import annotations

import warnings
from pathlib import Path


def export(path: Path, layers: int, width: int, *, external: bool = False) -> None:
    """Export a random BERT without a pooler, dynamic in batch and length, to `path`.

    Args:
        path: The file to write.
        layers: How many layers.
        width: Hidden size, a multiple of 64, the size of a head; the feed-forward networks are four times as wide.
        external: Whether the weights lie beside the file, as they must beyond 2 GB.
    """
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )
    model: torch.nn.Module = BertModel(config, add_pooling_layer=False)
    model.eval()
    ids = torch.randint(1000, 20000, (2, 9))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            kwargs=inputs,
            f=path,
            dynamic_shapes=dict.fromkeys(inputs, dims),
            output_names=["last_hidden_state"],
            dynamo=True,
            external_data=external,
            verbose=False,
        )
