"""Ranges that other tools wrote: `formats` tells their files apart, others read one each, `ranges` is what they give."""
