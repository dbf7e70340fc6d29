"""Shapes of values as expressions over the sizes that a graph leaves open, and the rules that tell them.

Tried instead, on MiniLM as exported and as `fuse` leaves it (``examples/benchmarks/libraries.py``, on AVX2):
`onnx.shape_inference` 1.23 told 60 of 285 and 7 of 64 shapes; `symbolic_shape_infer` of onnxruntime 1.32 told all of
the export's, but 9 of the 64, for it does not look into model-local functions, and the dialect consists of them. They
took 2 to 5 times as long, reading the file included, need a protobuf where a compile infers some seventeen times in
memory and follows each edit in between, and leave no contents of small integer tensors behind, by which Reshapes are
understood.
"""
