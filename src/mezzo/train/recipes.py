"""The recipes that mezzo has: one that shows that all works, the one for nano, and a larger one for a GPU."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from mezzo.model.vision_config import VisionConfig
from mezzo.train.data.mixture import Mixture, Part, Size
from mezzo.train.recipe import Recipe, StageRecipe

_CELLS = (Size(2, 2), Size(1, 3))
_STRIPS = (Size(1, 3), Size(2, 2), Size(2, 4), Size(1, 6))
_SMALL = (Size(2, 8), Size(3, 5), Size(4, 4), Size(5, 3), Size(3, 7), Size(2, 6))
_MEDIUM = (Size(5, 7), Size(6, 6), Size(7, 5), Size(6, 8))
_LARGE = (Size(9, 7), Size(10, 8), Size(14, 14), Size(8, 12), Size(12, 12))

_DOCUMENTS = (
    ("receipt", 1.5), ("invoice", 1.0), ("form", 1.0), ("table", 1.5), ("card", 1.0), ("screen", 0.7), ("sign", 1.0),
)  # fmt: skip
_CHARTS = (("bar_chart", 2.0), ("line_chart", 0.7), ("pie_chart", 1.0))

LETTERS = Mixture((Part(1, (("letters", 1.0),), _CELLS),), ramp=1500)
WORDS = Mixture(
    (
        Part(
            1,
            (("letters", 0.2), ("plain_page", 0.5), ("page", 0.1), ("line", 0.05), ("shapes", 0.15)),
            _STRIPS,
        ),
    ),
    ramp=900,
)
_READING = (("letters", 0.05), ("plain_page", 0.1), ("page", 0.2), ("line", 0.65))
_LINES = (*_SMALL, Size(3, 8), Size(4, 8), Size(6, 6))
_SHAPES = (("shapes", 1.0),)
_PAGE = (("page", 1.0),)
_FIELDS = (Size(2, 3), Size(3, 4), Size(4, 6), Size(5, 5), Size(5, 7), Size(7, 7), Size(6, 8))

PARAGRAPHS = Mixture((Part(5, _READING, _SMALL), Part(2, _SHAPES, _FIELDS)))
PAGES = Mixture(
    (
        Part(5, _READING, (*_LINES, Size(1, 4), Size(4, 10))),
        # As much as reading: large plain shapes take long to be told apart, pentagon from circle, cross from square.
        Part(6, _SHAPES, _FIELDS),
        Part(0.4, (*_DOCUMENTS, *_CHARTS), _MEDIUM),
        Part(
            0.6,
            (("line", 4.0), ("page", 1.0), ("shapes", 3.0), *_DOCUMENTS, *_CHARTS),
            (Size(7, 7), *_LARGE),
        ),
    )
)
ANSWERS = Mixture(
    (
        Part(
            13,
            (("line", 0.98), ("page", 0.02)),
            (Size(1, 4), Size(2, 6), Size(2, 8), Size(3, 5), Size(4, 4), Size(3, 8), Size(4, 10)),
        ),
        # A question costs some 35 tokens, whatever is answered: full lines teach letters cheapest.
        Part(4, _PAGE, (Size(1, 6), Size(1, 8), Size(1, 12))),
        Part(9, _SHAPES, _FIELDS[:5]),
        Part(0.7, (*_DOCUMENTS, *_CHARTS), _MEDIUM),
        Part(
            1.5,
            (("line", 10.0), ("shapes", 5.0), *_DOCUMENTS, *_CHARTS),
            (Size(7, 7), Size(4, 10), Size(6, 8), *_LARGE),
        ),
    )
)
EVERYTHING = Mixture(
    (
        Part(3, (("line", 0.6), ("page", 0.4)), _SMALL),
        Part(3, (*_DOCUMENTS, *_CHARTS, ("shapes", 3.0)), _MEDIUM),
        Part(3, (*_DOCUMENTS, *_CHARTS, ("page", 2.0), ("shapes", 3.0)), _LARGE),
    )
)


def _vision(layers: int, hidden: int) -> VisionConfig:
    """Shape an encoder. Of rotary frequencies, 100 leaves more that tell a patch from its neighbours than 10000."""
    return VisionConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        patch_size=16,
        image_size=640,
        rope_theta=100.0,
        spatial_merge_size=2,
        image_token_id=16,
        projector_norm=True,
        patch_merger=True,
    )


CPU = Recipe(
    vision=_vision(layers=5, hidden=384),
    lora_rank=48,
    stages=(
        StageRecipe("letters", "encoder", LETTERS, 1000, 64, 6e-4, decay=0.01),
        StageRecipe("words", "encoder", WORDS, 1000, 96, 4e-4, decay=0.01),
        StageRecipe("paragraphs", "encoder", PARAGRAPHS, 3000, 192, 3e-4, decay=0.01),
        StageRecipe("pages", "encoder", PAGES, 8000, 192, 3e-4, decay=0.8),
        StageRecipe("answers", "decoder", ANSWERS, 500, 192, 8e-4, decay=0.01, text_tokens=128, text_every=6),
        StageRecipe(
            "joint",
            "joint",
            ANSWERS,
            600,
            192,
            7e-4,
            encoder_rate=0.0,
            projector_rate=0.3,
            warmup=15,
            decay=0.95,
            text_tokens=128,
            text_every=6,
        ),
    ),
)
"""For two cores.

A higher rate than 3e-4 costs the encoder more than it gains: with 8e-4 a hundred steps of paragraphs brought the loss
from 5.91 to 5.40, with 3e-4 to 4.81, on the same pictures.
"""

GPU = Recipe(
    vision=_vision(layers=8, hidden=512),
    lora_rank=64,
    stages=(
        StageRecipe("letters", "encoder", LETTERS, 1500, 512, 6e-4, decay=0.01),
        StageRecipe("words", "encoder", WORDS, 1500, 1024, 4e-4, decay=0.01),
        StageRecipe("paragraphs", "encoder", PARAGRAPHS, 6000, 4096, 6e-4, decay=0.01),
        StageRecipe("pages", "encoder", EVERYTHING, 6000, 8192, 6e-4, decay=0.5),
        StageRecipe("answers", "decoder", EVERYTHING, 2500, 4096, 8e-4, decay=0.2, text_tokens=2048),
        StageRecipe(
            "joint",
            "joint",
            EVERYTHING,
            4000,
            4096,
            4e-4,
            encoder_rate=0.5,
            projector_rate=0.5,
            decay=0.5,
            text_tokens=2048,
        ),
    ),
)
"""Written for one GPU of 80 GB and sixteen cores that draw; it has not been run."""

SMALL = replace(
    CPU,
    vision=_vision(layers=2, hidden=128),
    lora_rank=4,
    stages=tuple(
        replace(stage, steps=steps, cells=32, warmup=5, text_tokens=min(stage.text_tokens, 64))
        for stage, steps in zip(CPU.stages, (60, 20, 20, 10, 5, 5), strict=True)
    ),
)
"""A few minutes: shows that everything works, teaches nothing."""

RECIPES = MappingProxyType({"small": SMALL, "cpu": CPU, "gpu": GPU})
