"""Which rounding is to blame for what an int8 model loses, and what to do about it.

sources      every rounding there is, and which nodes must leave int8 to undo it
without      the int8 model in which some are undone, with the float constants that stored finds
local        what a rounding does on the spot; it says where to look first
rank         what each costs: left out in turn, on the same samples
groups       nodes that leave int8 together, measured in float: what comes back, and for how much time
advice       one sentence on what to do; findings has all of it, report shows it
"""
