"""Graph and plan to the int8 model. It decides nothing."""
