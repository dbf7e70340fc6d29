"""Embed texts with sentence-transformers: FOLDER TEXTS.json OUT.json."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from sentence_transformers import SentenceTransformer

folder, texts, out = map(Path, sys.argv[1:])
# The flag lets it import a class of ffc, which is installed; a folder of torch needs none.
model = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
vectors = model.encode(json.loads(texts.read_text(encoding="utf-8")))
found = {"versions": {"sentence-transformers": version("sentence-transformers")}, "vectors": vectors.tolist()}
out.write_text(json.dumps(found), encoding="utf-8")
