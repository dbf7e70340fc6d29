"""Embed texts with fastembed: FOLDER TEXTS.json OUT.json."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

folder, texts, out = map(Path, sys.argv[1:])
TextEmbedding.add_custom_model(
    model="compiled",
    pooling=PoolingType.DISABLED,  # both are in the graph
    normalization=False,
    sources=ModelSource(url="file://compiled"),  # it wants one, and looks at the folder below alone
    dim=384,
    model_file="model.onnx",
)
model = TextEmbedding("compiled", specific_model_path=str(folder))
vectors = [vector.tolist() for vector in model.embed(json.loads(texts.read_text(encoding="utf-8")))]
found = {"versions": {"fastembed": version("fastembed")}, "vectors": vectors}
out.write_text(json.dumps(found), encoding="utf-8")
