"""int8 by onnxruntime: static and dynamic candidates of an ONNX file, measured, and the fastest that is good enough."""
