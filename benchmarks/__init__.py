"""Measures mezzo beside its peers; how to run it and how to read it: `benchmarks/README.md`."""
