"""The small files of a checkpoint whose language half is a converted GGUF and whose vision half is mezzo's own."""

from __future__ import annotations

from typing import Any

from mezzo.model.config import ModelConfig
from mezzo.model.errors import UnsupportedCheckpoint
from mezzo.model.hf_config import hf_from_config, processor_files
from mezzo.weights.errors import WeightsError
from mezzo.weights.vision_half import IMAGE, IMAGE_BREAK, IMAGE_END

_OF_BOTH = ("spatial_merge_size", "projector_hidden_act", "multimodal_projector_bias")
_OF_PROCESSOR = ("image_mean", "image_std")
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def multimodal_files(
    text: dict[str, Any], settings: dict[str, Any], image_token_id: int
) -> dict[str, dict[str, Any]]:
    """Return config.json and the image processor's files, by name, as an export of the same model has them.

    text       config.json of the language half alone (`llama_config`)
    settings   the vision half's (`VisionHalf.settings`)
    Raises: WeightsError for a vision half that mezzo does not compute.
    """
    raw = {
        "model_type": "mistral3",
        # The same network as llama's; Mistral 3 with a llama inside is unknown to some of those who load it.
        "text_config": text | {"model_type": "mistral", "sliding_window": None},
        "vision_config": {"model_type": "pixtral"} | settings["vision_config"],
        "image_token_index": image_token_id,
        "tie_word_embeddings": text["tie_word_embeddings"],
    } | {name: settings[name] for name in _OF_BOTH}
    try:
        config = ModelConfig.from_hf(raw, {name: settings[name] for name in _OF_PROCESSOR})
    except UnsupportedCheckpoint as error:
        raise WeightsError(f"The vision half is not supported: {error}.") from error
    assert config.vision is not None
    token_ids = {name: text[name] for name in _TOKEN_IDS if name in text}
    files = {"config.json": hf_from_config(config, dtype="float32", token_ids=token_ids)}
    files |= processor_files(config.vision)
    files["processor_config.json"] |= {
        "image_token": IMAGE,
        "image_break_token": IMAGE_BREAK,
        "image_end_token": IMAGE_END,
    }
    return files
