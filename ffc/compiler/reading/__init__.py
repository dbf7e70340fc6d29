"""Reading what other tools wrote as blocks: onnxruntime's fused kernels, TensorFlow's forms, flattened products."""
