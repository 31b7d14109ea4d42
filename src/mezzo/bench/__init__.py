"""Measures any server of chat completions from outside, as its clients see it: `mezzo bench`, docs/bench.md.

    client → load → workloads → run → report, plot

It imports nothing else of mezzo: what it says of mezzo and of other servers is found out in the same way.
"""
