"""What transformers' networks are given for a conversation with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mezzo.model.config import ModelConfig


def their_inputs(folder: Path, messages: list[dict[str, Any]], image: Image.Image) -> dict[str, torch.Tensor]:
    """Do what PixtralProcessor does, without torchvision, which its module needs; all images are `image`."""
    from transformers import AutoTokenizer
    from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

    processor = PixtralImageProcessorPil.from_pretrained(folder)
    config = ModelConfig.from_folder(folder)
    assert config.vision is not None
    edge = config.vision.merged_patch_size
    text = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    images = [image] * text.count("[IMG]")
    made = processor(images, patch_size=edge, return_tensors="pt")
    for height, width in made["image_sizes"].tolist():
        row = "<img>" * (width // edge)
        rows = f"{row}[IMG_BREAK]" * (height // edge)
        text = text.replace("[IMG]", rows.removesuffix("[IMG_BREAK]") + "[IMG_END]", 1)
    ids = AutoTokenizer.from_pretrained(folder)(text.replace("<img>", "[IMG]"), return_tensors="pt")
    return {**ids, "pixel_values": made["pixel_values"], "image_sizes": made["image_sizes"]}
