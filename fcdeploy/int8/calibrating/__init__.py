"""A float model run over samples: calibrations, made by one or many, and added up."""
