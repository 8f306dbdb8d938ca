"""The deployable folder or zip: read and checked with NumPy and onnxruntime alone, written with everything."""
