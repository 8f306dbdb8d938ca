"""Bring a float model into the few forms that the rest of fcdeploy knows, without changing what it computes."""
