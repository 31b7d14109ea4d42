"""A run as a picture: for each load, which share of its requests or gaps was done in which time.

SVG, written here: three curves over two axes need a hundred lines, and the library that could do it, and PNG too,
is larger than everything else that `mezzo bench` imports.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from mezzo.bench.figures import LoadFigures, Percentiles

# Told apart in any kind of colour vision: Okabe and Ito's palette.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_SHARES = (0.50, 0.90, 0.95, 0.99, 1.0)
_PANEL_WIDTH, _PANEL_HEIGHT, _MARGIN, _LEGEND_LINE = 300, 220, 60, 18


def write_plot(loads: Sequence[LoadFigures], title: str, path: Path) -> None:
    """Raises: OSError."""
    path.write_text(svg(loads, title), encoding="utf-8")


def svg(loads: Sequence[LoadFigures], title: str) -> str:
    """Draw TTFT, ITL and end-to-end times side by side: percentiles up, milliseconds to the right, on a log scale."""
    kinds = (
        ("time to first token", [load.ttft_ms for load in loads]),
        ("between tokens", [load.itl_ms for load in loads]),
        ("end to end", [load.e2e_ms for load in loads]),
    )
    panels = [_panel(name, curves, index) for index, (name, curves) in enumerate(kinds)]
    width = len(kinds) * (_PANEL_WIDTH + _MARGIN) + _MARGIN
    height = _PANEL_HEIGHT + 2 * _MARGIN + _LEGEND_LINE * len(loads) + 20
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            _text(_MARGIN, 24, title, size=15),
            *panels,
            *_legend(loads),
            "</svg>",
            "",
        ]
    )


def _panel(name: str, curves: Sequence[Percentiles | None], index: int) -> str:
    left, top = _MARGIN + index * (_PANEL_WIDTH + _MARGIN), _MARGIN
    bottom = top + _PANEL_HEIGHT
    shown = [_values(percentiles) for percentiles in curves if percentiles is not None]
    parts = [
        f'<rect x="{left}" y="{top}" width="{_PANEL_WIDTH}" height="{_PANEL_HEIGHT}" fill="none" stroke="#888"/>',
        _text(left, top - 8, f"{name} (ms)"),
    ]
    if not shown:
        return "\n".join([*parts, _text(left + 10, top + 30, "none")])
    low, high = _decades(value for values in shown for value in values)

    def x(value: float) -> float:
        return left + _PANEL_WIDTH * (math.log10(max(value, 10**low)) - low) / (high - low)

    for decade in range(low, high + 1):
        at = x(10**decade)
        parts.append(f'<line x1="{at:.1f}" y1="{top}" x2="{at:.1f}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(_text(at, bottom + 16, f"{10.0**decade:g}", anchor="middle"))
    for share, words in zip(_SHARES, ("p50", "p90", "p95", "p99", "max"), strict=True):
        at = _y(share, bottom)
        parts.append(
            f'<line x1="{left}" y1="{at:.1f}" x2="{left + _PANEL_WIDTH}" y2="{at:.1f}" stroke="#eee"/>'
        )
        if index == 0:
            parts.append(_text(left - 6, at + 4, words, anchor="end"))
    for number, percentiles in enumerate(curves):
        if percentiles is not None:
            points = " ".join(
                f"{x(value):.1f},{_y(share, bottom):.1f}"
                for share, value in zip(_SHARES, _values(percentiles), strict=True)
            )
            colour = _COLOURS[number % len(_COLOURS)]
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return "\n".join(parts)


def _y(share: float, bottom: float) -> float:
    """Place the percentiles at equal distances: the upper ones are what one looks for."""
    return bottom - _PANEL_HEIGHT * (0.1 + 0.8 * _SHARES.index(share) / (len(_SHARES) - 1))


def _values(percentiles: Percentiles) -> tuple[float, ...]:
    return percentiles.p50, percentiles.p90, percentiles.p95, percentiles.p99, percentiles.max


def _decades(values: Iterable[float]) -> tuple[int, int]:
    """Return the powers of ten around the values, at least one apart."""
    positive = [value for value in values if value > 0] or [1.0]
    low = math.floor(math.log10(min(positive)))
    return low, max(low + 1, math.ceil(math.log10(max(positive))))


def _legend(loads: Sequence[LoadFigures]) -> Iterable[str]:
    for number, load in enumerate(loads):
        at = _PANEL_HEIGHT + 2 * _MARGIN + _LEGEND_LINE * number
        colour = _COLOURS[number % len(_COLOURS)]
        yield f'<line x1="{_MARGIN}" y1="{at}" x2="{_MARGIN + 24}" y2="{at}" stroke="{colour}" stroke-width="3"/>'
        rate = (
            f"{load.completion_tokens_per_s:.0f} tokens/s, {load.requests} requests, {load.num_failed} failed"
        )
        yield _text(_MARGIN + 32, at + 4, f"{load.name}: {rate}")


def _text(x: float, y: float, words: str, *, size: int = 12, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(words)}</text>'
