"""Kernels of our own for the CPU: what a decoding step does most, in C. Why there are any: docs/decisions/0024."""
