"""Data sources: each yields one sample at a time, checked against the model's inputs. `kinds.py` tells which opens what."""
