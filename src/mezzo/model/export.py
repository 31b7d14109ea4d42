"""Writing a network as a checkpoint folder that other programs load: transformers, vLLM, mistral-inference.

A folder appears whole or not at all: it is written under another name beside its place and renamed at the end.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from mezzo.kit.files import sync_to_disk, write_json
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.hf_config import hf_from_config, processor_files
from mezzo.model.layout import HF_MULTIMODAL_SAVED, HF_TEXT, MISTRAL, Layout
from mezzo.model.network import Network
from mezzo.model.params_json import params_from_config
from mezzo.model.shards import OutgoingTensor, plan_shards, write_shards
from mezzo.model.weight_files import STEMS, LayoutName

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


class CannotExport(Exception):
    """The export cannot be written to where it is wanted; the message is for the operator."""


def load_for_export(
    folder: Path, dtype: str, on_progress: Callable[[int, int], None] = lambda loaded, total: None
) -> Network:
    """Load a checkpoint into the CPU's memory, in the dtype that it is to be written in.

    Raises: UnsupportedCheckpoint.
    """
    config = ModelConfig.from_folder(folder)
    return load_network(
        folder, config, dtype=DTYPES[dtype], device=torch.device("cpu"), on_progress=on_progress
    )


def exported_bytes(network: Network) -> int:
    """Return how many bytes the weights take on the disk."""
    return sum(tensor.num_bytes for tensor in _outgoing(network, MISTRAL))


def write_checkpoint(
    network: Network,
    target: Path,
    *,
    layout: LayoutName = "hf",
    max_shard_bytes: int = 5_000_000_000,
    source: Path | None = None,
    companions: Iterable[str] = (),
    advance: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Write `network` into the folder `target`, which must not exist or be empty.

    source       folder that the weights came from: `companions`, names of files in it, are copied, and its config.json
                 tells what the model does not know, the model's family and the ids of special tokens
    advance      called with the bytes of each part written, `exported_bytes` in all
    Matrices are written in the network's dtype, everything else too. Raises: CannotExport, UnsupportedCheckpoint for
    what the layout cannot say, OSError.
    """
    check_target(target)
    settings = _settings(network, layout, source)
    tensors = _outgoing(network, _layout(network, layout))
    free = shutil.disk_usage(target.absolute().parent).free
    if free < (needed := sum(tensor.num_bytes for tensor in tensors)):
        raise CannotExport(f"{target.absolute().parent} has {free} bytes free, and the weights take {needed}")
    partial = target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        write_shards(partial, STEMS[layout], plan_shards(tensors, max_shard_bytes), advance)
        if source is not None:
            for name in companions:
                shutil.copyfile(source / name, partial / name)
        # One of the source's own settles it: what it does not say is as its readers take it.
        has_processor = any((partial / name).exists() for name in _PROCESSORS)
        for name, content in settings.items():
            if not (has_processor and name in _PROCESSORS):
                write_json(partial / name, content)
        for file in partial.iterdir():
            sync_to_disk(file)
        sync_to_disk(partial)
        check_target(target)
        partial.rename(target)
        sync_to_disk(target.absolute().parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_target(target: Path) -> None:
    """Check that an export may be written there. Raises: CannotExport for a place that is taken or has no folder."""
    if target.is_dir():
        if any(target.iterdir()):
            raise CannotExport(f"{target} is not empty")
    elif target.exists() or target.is_symlink():
        raise CannotExport(f"{target} is not a folder")
    elif not target.absolute().parent.is_dir():
        raise CannotExport(f"{target.absolute().parent} does not exist")


def _layout(network: Network, name: LayoutName) -> Layout:
    if name == "mistral":
        return MISTRAL
    return HF_TEXT if network.vision is None else HF_MULTIMODAL_SAVED


def _outgoing(network: Network, layout: Layout) -> list[OutgoingTensor]:
    """List the tensors of a checkpoint, in the order of the network's parameters."""
    parameters = dict(network.named_parameters())  # tied embeddings once
    order = {name: number for number, name in enumerate(parameters)}
    if network.config.tied_embeddings:
        # PyTorch lists the one matrix under the name it meets first, checkpoints have it as the embeddings.
        parameters["decoder.tok_embeddings.weight"] = parameters.pop("decoder.output.weight")
        order["decoder.tok_embeddings.weight"] = order["decoder.output.weight"]
    places = layout.places(network.config, parameters)
    return [
        OutgoingTensor(name, parameters[place.parameter], place, network.decoder.dtype)
        for name, place in sorted(places.items(), key=lambda item: (order[item[1].parameter], item[1].start))
    ]


def _settings(network: Network, layout: LayoutName, source: Path | None) -> dict[str, dict[str, Any]]:
    """Return the files that describe the network, by name."""
    config = network.config
    if layout == "mistral":
        return {"params.json": params_from_config(config)}
    given = _source_config(source)
    text = given.get("text_config") or given
    token_ids = {name: text[name] for name in _TOKEN_IDS if text.get(name) is not None}
    dtype = {value: key for key, value in DTYPES.items()}[network.decoder.dtype]
    settings = {
        "config.json": hf_from_config(config, dtype=dtype, family=text.get("model_type"), token_ids=token_ids)
    }
    return settings if config.vision is None else settings | processor_files(config.vision)


def _source_config(source: Path | None) -> dict[str, Any]:
    if source is None or not (source / "config.json").is_file():
        return {}
    raw = json.loads((source / "config.json").read_text("utf-8"))
    return raw if isinstance(raw, dict) else {}
