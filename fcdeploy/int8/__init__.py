"""Float model to int8 model, in the order of the work:

recording    samples to a calibration: what every tensor looked like
planning     graph and calibration to a plan: what every node becomes, with which scales, and why
writing      graph and plan to the int8 model
timing       which nodes stay in float because integers would be slower, measured on this CPU
refining     biases and weights corrected on samples, layer by layer
"""
