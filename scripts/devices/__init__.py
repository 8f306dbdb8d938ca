"""`scripts/test-arm` and `scripts/test-cortex-m`: native code on emulated CPUs, and what its kernels take there."""
