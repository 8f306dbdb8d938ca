"""What the installed onnxruntime does with tiny models: asked once for a version and a CPU, kept in the cache folder."""
