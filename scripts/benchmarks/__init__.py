"""`scripts/bench`: one benchmark a file, each beside its peers; `bench.py` lists them, `page.py` writes docs/benchmarks.md."""
