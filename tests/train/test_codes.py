"""The code of a cell tells what is in it, and begins as what the decoder knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mezzo.train.codes import CellCodes
from mezzo.train.data.colours import NAMES
from mezzo.train.data.picture import area_number
from mezzo.train.stages import Lessons
from mezzo.train.targets import CHARACTERS
from tests.train.small import make_chat, make_lessons


@pytest.fixture
def lessons(language: Path) -> Lessons:
    return make_lessons(language)


def cell(chars: str = "", area: int = 0, centres: int = 0) -> dict[str, torch.Tensor]:
    """Return the targets of one cell."""
    classes = [0 if char == "·" else CHARACTERS.index(char) + 1 for char in chars.ljust(8, "·")]
    return {
        "cell_chars": torch.tensor([classes]),
        "cell_areas": torch.tensor([area]),
        "cell_centres": torch.tensor([centres]),
    }


RED, BLUE = area_number("circle", "red"), area_number("circle", "blue")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (cell("abc"), cell("abd")),
        (cell("abc"), cell("acb")),
        (cell("a"), cell("aa")),
        (cell("abc"), cell("abcd")),
        (cell("a"), cell("A")),
        (cell("a"), cell()),
        (cell(area=RED), cell(area=BLUE)),
        (cell(area=RED), cell(area=area_number("square", "red"))),
        (cell(area=RED, centres=1), cell(area=RED)),
        (cell(centres=1), cell(centres=2)),
    ],
)
@torch.no_grad()
def test_cells_that_differ_differ_in_their_codes(
    lessons: Lessons, first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]
) -> None:
    codes = lessons.half.codes
    assert torch.equal(codes(first), codes(first))
    apart = (codes(first) - codes(second)).square().mean().sqrt()
    assert apart > 0.3 * lessons.half.embedding_rms


@torch.no_grad()
def test_codes_begin_as_the_embeddings_of_tokens(lessons: Lessons, language: Path) -> None:
    codes, embeddings = lessons.half.codes, lessons.decoder.tok_embeddings.weight
    tokenizer = make_chat(language).tokenizer
    a, newline = (embeddings[tokenizer.encode(text).ids[0]] for text in ("a", "\n"))
    number = CHARACTERS.index("a") + 1
    for place, from_left in enumerate((0, 1, 2, 3, 0, 1, 2, 3)):
        turned = codes.chars[place, number] - 0.8**from_left * a
        assert torch.allclose(turned.norm(), 0.6 * a.norm(), rtol=1e-3)
        assert torch.nn.functional.cosine_similarity(turned, a, dim=0) < 0.7
        assert torch.equal(codes.chars[place, 0], 0.2 * newline if place % 2 == 0 else torch.zeros_like(a))
    red = embeddings[tokenizer.encode(" red").ids[0]]
    assert torch.equal(codes.colours[NAMES.index("red")], red)
    assert not codes.kinds[0].any()
    assert not codes.centres[0].any()


def test_the_same_seed_gives_the_same_codes(lessons: Lessons, language: Path) -> None:
    embeddings = lessons.decoder.tok_embeddings.weight.detach()
    codes = [CellCodes(embeddings.shape[1], 2) for _ in range(3)]
    for seed, one in zip((7, 7, 8), codes, strict=True):
        one.start_from(embeddings, make_chat(language).tokenizer, seed)
    assert torch.equal(codes[0].chars, codes[1].chars)
    assert not torch.equal(codes[0].chars, codes[2].chars)
