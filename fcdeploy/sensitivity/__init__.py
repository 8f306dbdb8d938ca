"""Sensitivity analysis: which roundings cost an int8 model its accuracy, and what to do about it.

error_sources     every rounding there is, and which nodes must leave int8 to undo it
ablation          the int8 model in which some are undone, with the float constants that stored_constants finds
local_errors      the local error of each rounding, which says where to look first
rank              what each costs: left out in turn, on the same samples
groups            nodes that leave int8 together, measured in float: what comes back, and for how much time
advice            one sentence on what to do; analysis has all of it
"""
