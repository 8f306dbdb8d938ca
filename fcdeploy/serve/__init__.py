"""Open Inference Protocol v2 over ONNX models: an engine that knows no protocol, and HTTP on top of it."""
