"""Colours that have a name everybody agrees on, with the room for variation that the name leaves."""

from __future__ import annotations

import colorsys
import random

RGB = tuple[int, int, int]

# Name -> ranges of hue (degrees), saturation and value (percent).
_RANGES: dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]] = {
    "red": ((-8, 8), (75, 100), (70, 100)),
    "orange": ((24, 36), (85, 100), (88, 100)),
    "yellow": ((50, 60), (75, 100), (88, 100)),
    "green": ((95, 145), (55, 100), (40, 85)),
    "blue": ((208, 240), (65, 100), (55, 100)),
    "purple": ((268, 290), (50, 100), (45, 80)),
    "pink": ((320, 345), (30, 65), (92, 100)),
    "brown": ((18, 30), (60, 85), (35, 58)),
    "black": ((0, 360), (0, 20), (0, 12)),
    "white": ((0, 360), (0, 4), (95, 100)),
    "grey": ((0, 360), (0, 6), (42, 68)),
    "cyan": ((178, 190), (65, 100), (80, 100)),
}
NAMES = tuple(_RANGES)


def shade(rng: random.Random, name: str) -> RGB:
    """Return some shade that people call `name`."""
    hue, saturation, value = (rng.uniform(*ends) for ends in _RANGES[name])
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation / 100, value / 100)
    return round(255 * red), round(255 * green), round(255 * blue)


def luminance(colour: RGB) -> float:
    """Return how bright a colour looks, 0 to 255 (ITU-R BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def distance(first: RGB, second: RGB) -> float:
    """Return how far two colours are apart, 0 to 441."""
    return float(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5)


def ink_and_paper(rng: random.Random, *, least_contrast: float = 70) -> tuple[RGB, RGB]:
    """Return two colours that text can be read in: mostly dark on light, sometimes the reverse, sometimes bright."""
    while True:
        kind = rng.random()
        if kind < 0.5:
            paper, ink = _grey(rng, 225, 255), _grey(rng, 0, 80)
        elif kind < 0.65:
            paper, ink = _grey(rng, 0, 60), _grey(rng, 190, 255)
        else:
            paper, ink = (any_colour(rng) for _ in range(2))
        if abs(luminance(ink) - luminance(paper)) >= least_contrast:
            return ink, paper


def any_colour(rng: random.Random) -> RGB:
    """Return any colour."""
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _grey(rng: random.Random, low: int, high: int) -> RGB:
    level = rng.randint(low, high)
    red, green, blue = (max(0, min(255, level + rng.randint(-8, 8))) for _ in range(3))
    return red, green, blue
