"""Work in its places to calls of kernels: which function, with which numbers, on which weights. No C text yet."""
