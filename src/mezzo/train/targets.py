"""What the encoder learns to see before it meets a decoder: for each patch and each cell, what is in it.

The generator knows where each character stands, so every patch of every picture is a lesson (docs/decisions/0017).
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mezzo.train.data.picture import Picture

CHARACTERS = string.printable[:95]
"""What is read: the printable part of ASCII. Class 0 is no character, class i is CHARACTERS[i - 1]."""
NUM_CLASSES = len(CHARACTERS) + 1
PATCH_SLOTS = 2
MAX_CENTRES = 2
_LEAST_SHARE = 1 / 16  # of a square's pixels: with less, nobody could say what it is
_CLASS = {char: number for number, char in enumerate(CHARACTERS, start=1)}


@dataclass(frozen=True)
class Targets:
    """Of one picture, row-major.

    patch_chars   int64 (patches, PATCH_SLOTS), classes of the characters whose middle is in the patch, left to right
    cell_chars    int64 (cells, merge * merge * PATCH_SLOTS), the same of a cell's patches, row by row
    patch_areas   int64 (patches,), the number in `Picture.areas` that most of its painted pixels have, or 0
    cell_areas    int64 (cells,), the number of what has the largest share of itself in the cell: a small thing is not
                  lost to the large one beside it, which has cells of its own
    cell_centres  int64 (cells,), how many filled things have their middle in the cell, at most MAX_CENTRES
    """

    patch_chars: NDArray[np.int64]
    cell_chars: NDArray[np.int64]
    patch_areas: NDArray[np.int64]
    cell_areas: NDArray[np.int64]
    cell_centres: NDArray[np.int64]


def targets_of(picture: Picture, patch: int, merge: int) -> Targets:
    """Compute the targets for patches of `patch` pixels and cells of `merge` by `merge` of them."""
    height, width = picture.areas.shape
    edge = patch * merge
    rows, columns = height // edge, width // edge

    def squares(of_patches: NDArray[np.int64]) -> NDArray[np.int64]:
        grid = of_patches.reshape(rows, merge, columns, merge, -1)
        return grid.transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)

    chars = _slots(picture, patch)
    return Targets(
        patch_chars=chars,
        cell_chars=squares(chars),
        patch_areas=_areas(picture.areas, patch, by_share=False),
        cell_areas=_areas(picture.areas, edge, by_share=True),
        cell_centres=_centres(picture, edge),
    )


def _slots(picture: Picture, edge: int) -> NDArray[np.int64]:
    height, width = picture.areas.shape
    rows, columns = height // edge, width // edge
    slots = np.zeros((rows * columns, PATCH_SLOTS), np.int64)
    used = np.zeros(rows * columns, np.int64)
    for glyph in picture.glyphs:
        if not (0 <= glyph.x < width and 0 <= glyph.y < height) or glyph.char not in _CLASS:
            continue
        place = int(glyph.y) // edge * columns + int(glyph.x) // edge
        if used[place] < PATCH_SLOTS:
            slots[place, used[place]] = _CLASS[glyph.char]
            used[place] += 1
    return slots


def _areas(areas: NDArray[np.uint8], edge: int, *, by_share: bool) -> NDArray[np.int64]:
    """areas (height, width) -> (squares,) of `edge` pixels: the number with most pixels there, or 0 for too few.

    by_share   count a pixel the less, the more there are of its number in the whole picture
    """
    rows, columns = areas.shape[0] // edge, areas.shape[1] // edge
    most, chosen = np.zeros((rows, columns)), np.zeros((rows, columns), np.int64)
    numbers, totals = np.unique(areas, return_counts=True)
    for number, total in zip(numbers.tolist(), totals.tolist(), strict=True):
        if number == 0:
            continue
        pixels = (areas == number).reshape(rows, edge, columns, edge).sum((1, 3))
        pixels[pixels < _LEAST_SHARE * edge * edge] = 0
        weight = pixels / total if by_share else pixels
        chosen[weight > most] = number
        most = np.maximum(most, weight)
    return chosen.reshape(-1)


def _centres(picture: Picture, edge: int) -> NDArray[np.int64]:
    height, width = picture.areas.shape
    counts = np.zeros((height // edge) * (width // edge), np.int64)
    for x, y in picture.centres:
        if 0 <= x < width and 0 <= y < height:
            counts[int(y) // edge * (width // edge) + int(x) // edge] += 1
    return np.minimum(counts, MAX_CENTRES)
