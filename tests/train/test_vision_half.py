"""What is trained computes what is shipped, and starts from filters that see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mezzo.model.vision import Vision
from mezzo.train.filters import frequency_filters, start_from_edges
from mezzo.train.vision_half import VisionHalf, encode, initialize
from tests.train.small import RECIPE, VISION, make_lessons, make_source


def make_vision(seed: int = 0) -> Vision:
    torch.manual_seed(seed)
    vision = Vision(VISION, 24, torch.float32)
    initialize(vision, output_rms=0.1)
    return vision


def make_pixels(pictures: int, rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (pictures, rows * 16, columns * 16, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("pictures", "rows", "columns"), [(1, 3, 4), (3, 2, 5), (4, 1, 1)])
@torch.no_grad()
def test_pictures_together_are_what_vision_makes_of_each(pictures: int, rows: int, columns: int) -> None:
    vision, pixels = make_vision(), make_pixels(pictures, rows, columns)
    patches, cells = encode(vision, pixels)
    assert patches.shape == (pictures * rows * columns * 4, VISION.hidden_size)
    assert torch.equal(cells, torch.cat(vision(list(pixels))))


@torch.no_grad()
def test_outputs_begin_as_large_as_embeddings() -> None:
    _, cells = encode(make_vision(), make_pixels(4, 3, 3))
    assert 0.02 < cells.square().mean().sqrt() < 0.5  # about the output_rms of 0.1


@pytest.mark.parametrize(("hidden", "patch"), [(32, 16), (384, 16), (16, 4)])
def test_filters_are_finite_and_no_two_alike(hidden: int, patch: int) -> None:
    torch.manual_seed(0)
    filters = frequency_filters(replace(VISION, hidden_size=hidden, patch_size=patch))
    assert filters.shape == (hidden, 3, patch, patch)
    assert torch.isfinite(filters).all()
    flat = torch.nn.functional.normalize(filters.flatten(1), dim=1)
    assert ((flat @ flat.T).triu(1) < 0.9999).all()
    # Of all that see brightness, only one in patch_size ** 2 sees that of the paper.
    num_brightness = hidden - min(24, hidden // 8)
    assert (filters.sum((1, 2, 3)).abs() > 0.2 * patch).sum() == -(-num_brightness // patch**2)


@torch.no_grad()
def test_edges_see_letters(packaged_fonts: None, language: Path) -> None:
    pixels = torch.from_numpy(make_source(language, cells=200).open().batch(0).pixels)
    vision, other = make_vision(), make_vision()
    start_from_edges(vision, pixels)
    start_from_edges(other, pixels)
    for ours, theirs in zip(vision.parameters(), other.parameters(), strict=True):
        assert torch.allclose(
            ours, theirs, atol=1e-4
        )  # least squares end where the memory's alignment lets them
    before, after = encode(make_vision(), pixels)[0], encode(vision, pixels)[0]
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)


def test_state_files_name_parameters_so(language: Path) -> None:
    """A run goes on from the files of an earlier version."""
    half: VisionHalf = make_lessons(language).half
    names = half.state_dict()
    assert {name.partition(".")[0] for name in names} == {"vision", "heads", "codes", "lora"}
    assert {name for name in names if name.startswith("codes.")} == {
        "codes.chars", "codes.kinds", "codes.colours", "codes.centres"
    }  # fmt: skip
    assert {name for name in names if name.startswith("heads.")} == {
        f"heads.{head}.{part}"
        for head in ("patch_chars", "cell_chars", "patch_areas", "cell_areas", "cell_centres")
        for part in ("weight", "bias")
    }
    assert {name for name in names if name.startswith("lora.layers/1/")} == {
        f"lora.layers/1/{matrix}/{part}"
        for matrix in ("attention/wqkv", "attention/wo", "feed_forward/w13", "feed_forward/w2")
        for part in "ab"
    }
    assert names["lora.layers/0/attention/wo/a"].shape[0] == RECIPE.lora_rank
    embeddings = make_lessons(language).decoder.tok_embeddings.weight.detach().numpy()
    assert half.embedding_rms == pytest.approx(np.sqrt(np.square(embeddings).mean()), rel=1e-5)
