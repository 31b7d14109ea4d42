"""What a patch and a cell hold, for pictures made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mezzo.train.data.picture import Glyph, Picture, area_number
from mezzo.train.targets import CHARACTERS, PATCH_SLOTS, Targets, targets_of

PATCH = 8
RED_CIRCLE, BLUE_SQUARE = area_number("circle", "red"), area_number("square", "blue")


def letters(
    text: str, y: float = 4, line: int = 0, *, first: float = 2, apart: float = 4
) -> tuple[Glyph, ...]:
    return tuple(Glyph(char, first + apart * i, y, line) for i, char in enumerate(text))


def make_targets(
    *glyphs: Glyph,
    areas: dict[tuple[int, int], int] | None = None,
    centres: tuple[tuple[float, float], ...] = (),
) -> Targets:
    """Compute the targets of a picture of two rows of three cells; `areas` by the patch that they fill."""
    painted = np.zeros((32, 48), np.uint8)
    for (row, column), number in (areas or {}).items():
        painted[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = number
    pixels = np.zeros((32, 48, 3), np.uint8)
    return targets_of(Picture(pixels, painted, glyphs, centres, ()), PATCH, 2)


def read(classes: np.ndarray) -> list[str]:
    return ["".join("·" if number == 0 else CHARACTERS[number - 1] for number in row) for row in classes]


def test_characters_stand_in_their_patches_and_cells() -> None:
    targets = make_targets(*letters("abcdefgh"))  # one for each four pixels, two in each patch
    assert read(targets.patch_chars)[:7] == ["ab", "cd", "ef", "gh", "··", "··", "··"]
    assert read(targets.cell_chars) == ["abcd····", "efgh····", *["········"] * 4]


def test_the_slots_of_a_cell_are_those_of_its_patches() -> None:
    targets = make_targets(*letters("ab", y=12), *letters("cd", line=1), *letters("e", y=12, first=12))
    assert read(targets.cell_chars)[0] == "cd··abe·"
    assert read(targets.patch_chars)[:1] == ["cd"]
    assert read(targets.patch_chars)[6:7] == ["ab"]


def test_a_space_is_a_character() -> None:
    assert read(make_targets(*letters("a b")).cell_chars)[0] == "a b·····"


def test_what_has_no_slot_left_is_left_out() -> None:
    targets = make_targets(*letters("abcdef", apart=2))
    assert read(targets.cell_chars)[0] == "abde····"
    assert read(targets.patch_chars)[:2] == ["ab", "de"]
    assert PATCH_SLOTS == 2


@pytest.mark.parametrize("place", [(-1, 4), (4, -0.5), (48, 4), (4, 32)])
def test_characters_outside_are_not_there(place: tuple[float, float]) -> None:
    targets = make_targets(Glyph("x", *place, 0), Glyph("é", 4, 4, 1))
    assert not targets.cell_chars.any()
    assert not targets.patch_chars.any()


def test_areas_are_what_fills_a_patch_and_what_is_most_at_home_in_a_cell() -> None:
    targets = make_targets(
        areas={
            (0, 0): RED_CIRCLE,
            (0, 1): BLUE_SQUARE,
            (1, 1): BLUE_SQUARE,
            (2, 3): RED_CIRCLE,
            (2, 2): BLUE_SQUARE,
        }
    )
    assert targets.patch_areas.reshape(4, 6).tolist() == [
        [RED_CIRCLE, BLUE_SQUARE, 0, 0, 0, 0],
        [0, BLUE_SQUARE, 0, 0, 0, 0],
        [0, 0, BLUE_SQUARE, RED_CIRCLE, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    # Two thirds of the square against half of the circle; half of the circle against a third of the square.
    assert targets.cell_areas.tolist() == [BLUE_SQUARE, 0, 0, 0, RED_CIRCLE, 0]


def test_a_small_thing_is_not_lost_to_a_large_one_nor_between_the_middles_of_patches() -> None:
    painted = np.zeros((32, 48), np.uint8)
    painted[:, 16:] = BLUE_SQUARE
    painted[4:10, 18:23] = RED_CIRCLE  # 30 pixels, the middle of no patch
    painted[20:22, 1:3] = RED_CIRCLE  # 4 of the 256 of a cell: nothing that one could name
    targets = targets_of(Picture(np.zeros((32, 48, 3), np.uint8), painted, (), (), ()), PATCH, 2)
    assert targets.cell_areas.tolist() == [0, RED_CIRCLE, BLUE_SQUARE, 0, BLUE_SQUARE, BLUE_SQUARE]
    assert targets.patch_areas.reshape(4, 6)[:2, 2].tolist() == [BLUE_SQUARE, BLUE_SQUARE]


def test_centres_are_counted_to_two() -> None:
    centres = ((1.0, 1.0), (15.9, 15.9), (5.0, 5.0), (16.0, 0.0), (47.0, 31.0), (48.0, 0.0), (-1.0, 3.0))
    assert make_targets(centres=centres).cell_centres.tolist() == [2, 1, 0, 0, 0, 1]


def test_cells_of_one_patch() -> None:
    picture = Picture(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8), letters("abcd"), (), ())
    targets = targets_of(picture, PATCH, 1)
    assert read(targets.cell_chars) == ["ab", "cd", "··", "··"]
