"""How a GGUF file becomes a checkpoint folder: config, tokenizer and float32 tensors, nothing lost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from mezzo.kit.files import write_json
from mezzo.weights.cache import CONVERTER_VERSION, require_free_space
from mezzo.weights.errors import WeightsError
from mezzo.weights.folder import MANIFEST
from mezzo.weights.gguf_file import GgufFile
from mezzo.weights.llama_layout import llama_config, map_tensors, special_token_ids
from mezzo.weights.progress import Progress
from mezzo.weights.safetensors_file import float32_bytes, write_float32
from mezzo.weights.tokenizer_files import build_tokenizer, tokenizer_config

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


def convert_gguf(gguf: Path, folder: Path, *, origin: Origin, progress: Progress) -> None:
    """Write the checkpoint into `folder`, which must not exist. At most two tensors are in memory at once.

    Everything that can be refused is checked before the first tensor is written.
    Raises: WeightsError for a model that is not supported or a disk without room; OSError from the disk.
    """
    file = GgufFile(gguf)
    config = llama_config(file)
    tensors = map_tensors(file, config)
    tokenizer = build_tokenizer(file)
    if tokenizer.get_vocab_size() > config["vocab_size"]:
        raise WeightsError(
            f"{gguf.name} has {tokenizer.get_vocab_size()} tokens but embeds only {config['vocab_size']}."
        )
    shapes = {tensor.name: tensor.source.shape for tensor in tensors}
    num_bytes = float32_bytes(shapes.values())
    require_free_space(folder.parent, num_bytes + SMALL_FILES_BYTES)

    folder.mkdir()
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", special_token_ids(file, config["vocab_size"]))
    write_json(folder / "tokenizer_config.json", tokenizer_config(file))
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    write_json(
        folder / MANIFEST, {"converter_version": CONVERTER_VERSION, **asdict(_completed(origin, file))}
    )
    with progress.stage("Converting to safetensors", num_bytes) as advance:
        write_float32(folder / "model.safetensors", shapes, (tensor.read() for tensor in tensors), advance)


def _completed(origin: Origin, file: GgufFile) -> Origin:
    name = str(file.get("general.name", file.path.stem))
    license_name = origin.license or file.get("general.license")
    return Origin(
        source=origin.source,
        sha256=origin.sha256,
        description=origin.description or (f"{name} ({license_name})" if license_name else name),
        license=license_name,
    )
