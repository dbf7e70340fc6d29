"""The functions of domain ``ffc``, and what changes graphs by programs: tracing, editing, int8 and half numbers."""

import ffc.graph.dialect.ops  # noqa: F401  (to declare the functions before anyone asks for one)
