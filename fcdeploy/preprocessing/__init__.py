"""Pictures to inputs: what `--preprocess` names, read into one value, and that value applied to pixels."""
