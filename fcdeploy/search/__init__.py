"""The fastest plan that holds an accuracy: groups of nodes leave int8, most harmful first, until the metric's drop is small.

evaluator    a model on the evaluation samples: the metric's paired figures, and the error of its outputs
verdict      whether the figures say that the drop is held, is not, or that the samples are too few to tell
groups       which nodes must leave int8 together to undo one rounding, and the rungs they may climb
ladder       the search algorithm, on numbers alone
goal         what is asked for
search       the running part: plans made, models built, evaluated and timed
report       what was found, for programs and for readers
"""
