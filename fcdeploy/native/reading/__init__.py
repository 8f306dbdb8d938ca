"""Q/DQ graph to integer program: each node once, in the graph's order."""
