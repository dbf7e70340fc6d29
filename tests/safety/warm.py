"""What every compile imports, for processes that are forked once it is there: importing it takes longer than a refusal."""

from __future__ import annotations

import onnx.reference
import onnxscript.version_converter

import ffc.cli
import ffc.compiler.pipeline
import ffc.compiler.reports.writing
from ffc.compiler.library import Library

__all__ = ["LIBRARY"]

assert onnx.reference and onnxscript.version_converter
assert ffc.cli and ffc.compiler.pipeline and ffc.compiler.reports.writing

LIBRARY = Library.default()
"""Its passes are imported as well. No session is made: threads do not survive a fork."""
