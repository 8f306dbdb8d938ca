"""From what was asked for to the fastest plan that holds it: groups of nodes leave int8, most harmful first.

request       what `quantize` was asked for, and whether it can be done
plan_request  samples set aside, the fastest plan, and then one of the next two
search        with an accuracy goal: plans made, models built, evaluated on the metric and timed
hold_floor    without one: what helps is kept, what harms left out, until the outputs are good enough
goal          the accuracy goal
evaluator     a model on the evaluation samples: the metric's paired figures, and the error of its outputs
verdict       whether the figures say that the drop is held, is not, or that the samples are too few to tell
groups        which nodes must leave int8 together to undo one rounding, and the rungs they may climb
builder       models of plans in which groups have left int8, made quickly
ladder        the algorithm, on numbers alone
"""
