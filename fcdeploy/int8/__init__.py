"""Float model to int8 model, in the order of the work:

calibrating  samples to a calibration: what every tensor looked like
problem      what planning starts from: prepared model, calibration, samples, target, and what was asked for
planning     problem to a plan: what every node becomes, with which scales, and why
timing       which nodes stay in float because integers would be slower, measured on this CPU
writing      model and plan to the int8 model; it decides nothing
refining     biases and weights corrected on samples, layer by layer
plan_file    a plan from a file, edited or not, and to one
judging      is the int8 model good enough, on samples kept apart?
read_back    the int8 model as the runtime optimizes it, held against the plan; loadable: does it load at all
cpu_differences, for_runtimes   on which CPUs, and in which other runtimes, the file is the same
nodes        what byte kernels make of a node, for all of these
"""
