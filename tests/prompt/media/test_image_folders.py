"""How a checkpoint's files say how it wants its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.prompt.media.images import ImageProcessor, UnsupportedImages


def write(path: Path, **files: object) -> Path:
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def test_a_text_checkpoint_has_none(tmp_path: Path) -> None:
    assert ImageProcessor.from_folder(write(tmp_path, config={"model_type": "llama"})) is None


def test_a_mistral3_checkpoint(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        config={"vision_config": {"model_type": "pixtral", "patch_size": 14}, "spatial_merge_size": 2},
        processor_config={"patch_size": 14, "spatial_merge_size": 2},
        preprocessor_config={"patch_size": {"height": 14, "width": 14}, "size": {"longest_edge": 1540}},
    )
    assert ImageProcessor.from_folder(folder) == ImageProcessor(
        patch_size=14, longest_edge=1540, spatial_merge_size=2
    )


def test_the_newer_form_has_it_all_in_one_file(tmp_path: Path) -> None:
    inner = {"patch_size": {"height": 14, "width": 14}, "size": {"longest_edge": 1540}, "resample": 3}
    folder = write(
        tmp_path,
        config={"vision_config": {}, "spatial_merge_size": 2} | {"vision_config": {"patch_size": 14}},
        processor_config={"image_processor": inner, "patch_size": 14, "spatial_merge_size": 2},
    )
    assert ImageProcessor.from_folder(folder) == ImageProcessor(
        patch_size=14, longest_edge=1540, spatial_merge_size=2
    )


def test_defaults_are_those_of_transformers(tmp_path: Path) -> None:
    folder = write(tmp_path, config={"vision_config": {"model_type": "pixtral"}})
    assert ImageProcessor.from_folder(folder) == ImageProcessor(patch_size=16, longest_edge=1024)


def test_models_that_merge_by_default_do(tmp_path: Path) -> None:
    folder = write(tmp_path, config={"model_type": "mistral3", "vision_config": {"patch_size": 14}})
    assert ImageProcessor.from_folder(folder) == ImageProcessor(
        patch_size=14, longest_edge=1024, spatial_merge_size=2
    )


def test_limits_are_the_callers(tmp_path: Path) -> None:
    folder = write(tmp_path, config={"vision_config": {"model_type": "pixtral"}})
    processor = ImageProcessor.from_folder(folder, limits=ImageLimits(max_bytes=10))
    assert processor is not None
    assert processor.limits.max_bytes == 10


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config": {"vision_config": {"model_type": "siglip"}}}, "siglip"),
        (
            {"config": {"vision_config": {"patch_size": 14}}, "processor_config": {"patch_size": 16}},
            "differs",
        ),
        ({"config": {"vision_config": {"patch_size": 0}}}, "patch_size 0"),
        ({"config": {"vision_config": {"patch_size": {"height": 14, "width": 16}}}}, "patch_size"),
        ({"config": {"vision_config": {"patch_size": True}}}, "patch_size True"),
        (
            {"config": {"vision_config": {"patch_size": 14}}, "preprocessor_config": {"resample": 2}},
            "resample 2",
        ),
        (
            {"config": {"vision_config": {"patch_size": 14}}, "preprocessor_config": {"size": "big"}},
            "size",
        ),
    ],
)
def test_what_is_not_supported_is_refused(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedImages, match=words):
        ImageProcessor.from_folder(write(tmp_path, **files))
