"""An int8 model made more accurate by running it on samples, layer by layer."""
