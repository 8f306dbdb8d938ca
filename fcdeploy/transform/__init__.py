"""A model in another shape that computes the same: dense layers as convolutions and back, one model as two."""
