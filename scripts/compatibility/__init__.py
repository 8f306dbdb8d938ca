"""`scripts/compat`: our files and the facts we build on in other versions of onnxruntime, other runtimes, CPUs and Pythons."""
