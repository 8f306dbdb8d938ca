"""`scripts/sweep` and `scripts/pipelines`: every operator, public models and scikit-learn's pipelines through the whole line."""
