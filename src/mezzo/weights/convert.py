"""How a GGUF file becomes a checkpoint folder: config, tokenizer and float32 tensors, nothing lost.

With a vision half, mezzo's own, the folder is a multimodal checkpoint; without one it is the language model alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mezzo.kit.files import write_json
from mezzo.model.lora_names import MERGED_LORA, STORED_A, STORED_B
from mezzo.weights.cache import CONVERTER_VERSION, require_free_space
from mezzo.weights.errors import WeightsError
from mezzo.weights.folder import MANIFEST
from mezzo.weights.gguf_file import GgufFile
from mezzo.weights.llama_layout import llama_config, map_tensors, special_token_ids
from mezzo.weights.multimodal import multimodal_files
from mezzo.weights.progress import Progress
from mezzo.weights.safetensors_file import float32_bytes, write_float32
from mezzo.weights.tokenizer_files import build_tokenizer, tokenizer_config
from mezzo.weights.vision_half import CHAT_TEMPLATE, TENSORS, VisionHalf
from mezzo.weights.vision_tensors import (
    ConvertedTensor,
    UpdatedTensor,
    join_tensors,
    read_vision_tensors,
)

SMALL_FILES_BYTES = 16_000_000  # tokenizer and configuration: a few megabytes, with room


@dataclass(frozen=True)
class Origin:
    """Where a GGUF came from; None for what its own metadata tells.

    sha256   of the GGUF, in hexadecimal
    """

    source: str
    sha256: str
    description: str | None = None
    license: str | None = None


def convert_gguf(
    gguf: Path, folder: Path, *, origin: Origin, progress: Progress, vision: VisionHalf | None = None
) -> None:
    """Write the checkpoint into `folder`, which must not exist. At most two tensors are in memory at once.

    Everything that can be refused is checked before the first tensor is written.
    Raises: WeightsError for a model that is not supported, a vision half that is damaged or does not fit it, or a
    disk without room; OSError from the disk.
    """
    file = GgufFile(gguf)
    checkpoint = _language_model(file) if vision is None else _multimodal_model(file, vision)
    files = {"model.safetensors": [(tensor.name, tensor) for tensor in checkpoint.tensors]}
    if updates := _updates(checkpoint.tensors):
        files[MERGED_LORA] = updates
    num_bytes = sum(float32_bytes(tensor.shape for _, tensor in tensors) for tensors in files.values())
    require_free_space(folder.parent, num_bytes + SMALL_FILES_BYTES)

    folder.mkdir()
    for name, content in checkpoint.settings.items():
        write_json(folder / name, content)
    for name, text in checkpoint.texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    manifest = {"converter_version": CONVERTER_VERSION, **asdict(_completed(origin, file))}
    write_json(folder / MANIFEST, manifest | checkpoint.provenance)
    with progress.stage("Converting to safetensors", num_bytes) as advance:
        for name, tensors in files.items():
            shapes = {stored: tensor.shape for stored, tensor in tensors}
            write_float32(folder / name, shapes, (tensor.read() for _, tensor in tensors), advance)


@dataclass(frozen=True)
class _Checkpoint:
    """What is written: JSON files and text files by name, tensors in their order, and more for the manifest."""

    settings: dict[str, dict[str, Any]]
    texts: dict[str, str]
    tensors: Sequence[ConvertedTensor]
    provenance: dict[str, str] = field(default_factory=dict)


def _language_model(file: GgufFile, renamed: Mapping[str, str] = MappingProxyType({})) -> _Checkpoint:
    config = llama_config(file)
    tensors = map_tensors(file, config)
    tokenizer = build_tokenizer(file, renamed)
    if tokenizer.get_vocab_size() > config["vocab_size"]:
        raise WeightsError(
            f"{file.path.name} has {tokenizer.get_vocab_size()} tokens but embeds only {config['vocab_size']}."
        )
    return _Checkpoint(
        settings={
            "config.json": config,
            "generation_config.json": special_token_ids(file, config["vocab_size"]),
            "tokenizer_config.json": tokenizer_config(file, renamed),
        },
        texts={"tokenizer.json": tokenizer.to_str(pretty=False)},
        tensors=tensors,
    )


def _multimodal_model(file: GgufFile, vision: VisionHalf) -> _Checkpoint:
    language = _language_model(file, vision.renamed_tokens)
    config = language.settings["config.json"]
    settings = vision.settings()
    image_token_id = file.strings("tokenizer.ggml.tokens").index(vision.image_token)
    # The vision half brings a chat template in a file of its own; two could differ.
    tokens = {k: v for k, v in language.settings["tokenizer_config.json"].items() if k != "chat_template"}
    return _Checkpoint(
        settings=language.settings
        | multimodal_files(config, settings, image_token_id)
        | {"tokenizer_config.json": tokens},
        texts=language.texts | {CHAT_TEMPLATE: vision.chat_template()},
        tensors=join_tensors(
            map_tensors(file, config), read_vision_tensors(vision.folder / TENSORS, settings["sha256"])
        ),
        provenance={"vision_sha256": settings["sha256"]},
    )


def _updates(tensors: Sequence[ConvertedTensor]) -> list[tuple[str, ConvertedTensor]]:
    """Return what was merged into the tensors, by name: with it, mezzo.model.merged_lora takes them apart again."""
    pairs = []
    for tensor in tensors:
        if isinstance(tensor, UpdatedTensor):
            stem = tensor.name.removesuffix(".weight")
            pairs += [(stem + STORED_A, tensor.a), (stem + STORED_B, tensor.b)]
    return pairs


def _completed(origin: Origin, file: GgufFile) -> Origin:
    name = str(file.get("general.name", file.path.stem))
    license_name = origin.license or file.get("general.license")
    return Origin(
        source=origin.source,
        sha256=origin.sha256,
        description=origin.description or (f"{name} ({license_name})" if license_name else name),
        license=license_name,
    )
