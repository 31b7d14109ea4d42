"""Weights on this machine: found, fetched, verified, converted once."""

from mezzo.weights.errors import WeightsError
from mezzo.weights.folder import CheckpointFolder, companion_files
from mezzo.weights.progress import Progress, SilentProgress, console_progress
from mezzo.weights.resolve import find_weights, resolve_weights
from mezzo.weights.upstream import UpstreamModel, is_upstream, parse_upstream

__all__ = [
    "CheckpointFolder",
    "Progress",
    "SilentProgress",
    "UpstreamModel",
    "WeightsError",
    "companion_files",
    "console_progress",
    "find_weights",
    "is_upstream",
    "parse_upstream",
    "resolve_weights",
]
