"""Graph, calibration and target to a plan: what every node becomes, with which scales, and why."""
