"""Is an int8 model good enough?  On samples that no tool has seen, by what its outputs mean:

samples_apart  which samples are set aside
judge          the int8 model's answers to them, against the float model's
judgement      what was found, held against the floor
floor          the least that is accepted
margins        how many decisions on other samples would change
fidelity       how near outputs are, in decibels
"""
