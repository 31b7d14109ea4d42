"""What is shipped says what was trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mezzo.kit.files import sha256_of_file
from mezzo.model.attention import SequenceSpan, plan_attention
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.kv_cache import KVCache
from mezzo.model.network import Network
from mezzo.train.chat import Conversation
from mezzo.train.data.source import Batch
from mezzo.train.decoder_pass import hidden_states
from mezzo.train.package import read_package, write_package
from mezzo.train.stages import Lessons
from mezzo.train.vision_half import encode
from tests.train.small import CPU, VISION, make_lessons, make_source, write_seeing

# Weights that are rounded to float16 are wrong by 2 ** -11 of their size; logits here are sums of 32 products of a few
# tenths after a dozen such matrices.
ROUNDED = 0.02
# The same float16 numbers, computed in float32 by other passes, and B A added to W instead of to the result.
SAME = 1e-4


def config_of(lessons: Lessons) -> ModelConfig:
    return replace(lessons.decoder.config, vision=VISION)


def trained(language: Path, seed: int = 1) -> Lessons:
    """Return lessons after what might be training: nothing is as it begins."""
    lessons = make_lessons(language, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in lessons.half.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return lessons


@torch.no_grad()
def training_logits(lessons: Lessons, conversation: Conversation, pixels: Tensor) -> Tensor:
    _, cells = encode(lessons.half.vision, pixels[None])
    token_ids = torch.tensor(conversation.token_ids)
    embeddings = lessons.decoder.tok_embeddings(token_ids)
    embeddings = embeddings.index_copy(0, (token_ids == lessons.image_id).nonzero()[:, 0], cells)
    logits: Tensor = lessons.decoder.output(hidden_states(lessons.decoder, embeddings[None])[0])
    return logits


@torch.no_grad()
def served_logits(network: Network, conversation: Conversation, pixels: Tensor) -> Tensor:
    token_ids = torch.tensor(conversation.token_ids)
    blocks = -(-len(token_ids) // 16)
    cache = KVCache(network.config, num_blocks=blocks, block_size=16, dtype=torch.float32, device=CPU)
    span = SequenceSpan(list(range(blocks)), 0, len(token_ids))
    plan = plan_attention([span], cache, network.config, torch.float32, CPU)
    positions = torch.arange(len(token_ids))
    assert network.vision is not None
    assert network.config.vision is not None
    rows = (token_ids == network.config.vision.image_token_id).nonzero()[:, 0]
    cells = torch.cat(network.vision([pixels]))
    logits: Tensor = network.decoder(token_ids, positions, plan, cache, positions, rows, cells)
    return logits


@pytest.mark.usefixtures("packaged_fonts")
def test_a_converted_package_says_what_was_trained(language: Path, tmp_path: Path) -> None:
    lessons = trained(language)
    batch: Batch = make_source(language).open().batch(0)
    conversation, pixels = batch.conversations[0], torch.from_numpy(batch.pixels[0])
    folder = write_seeing(lessons, tmp_path)
    network = load_network(folder, ModelConfig.from_folder(folder), dtype=torch.float32, device=CPU)
    served = served_logits(network, conversation, pixels)
    before = training_logits(lessons, conversation, pixels)
    assert before.std() > 0.1
    assert (served - before).abs().max() < ROUNDED
    untrained = training_logits(make_lessons(language), conversation, pixels)
    assert (served - untrained).abs().max() > 10 * ROUNDED
    read_package(lessons.half, config_of(lessons), tmp_path / "package")
    assert (served - training_logits(lessons, conversation, pixels)).abs().max() < SAME


def test_what_is_read_is_what_was_written_rounded(language: Path, tmp_path: Path) -> None:
    lessons, other = trained(language), trained(language, seed=2)
    write_package(lessons.half, config_of(lessons), tmp_path)
    read_package(other.half, config_of(other), tmp_path)
    for (name, written), read in zip(lessons.half.named_parameters(), other.half.parameters(), strict=True):
        assert torch.equal(written.half().float(), read), name


def test_its_files(language: Path, tmp_path: Path) -> None:
    lessons = trained(language)
    write_package(lessons.half, config_of(lessons), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "scaffolding.safetensors", "vision.json", "vision.safetensors"
    ]  # fmt: skip
    settings = json.loads((tmp_path / "vision.json").read_text())
    assert settings["sha256"] == sha256_of_file(tmp_path / "vision.safetensors")
    assert settings["vision_config"]["rope_theta"] == 100.0
    assert settings["spatial_merge_size"] == 2


def test_a_weight_that_float16_does_not_hold_is_refused(language: Path, tmp_path: Path) -> None:
    lessons = make_lessons(language)
    lessons.half.vision.projector.w_out.weight.data[1, 2] = 70_000.0
    with pytest.raises(
        OverflowError, match=r"multi_modal_projector\.linear_2\.weight has weights that float16"
    ):
        write_package(lessons.half, config_of(lessons), tmp_path)
    assert not (tmp_path / "vision.safetensors").exists()
    assert not (tmp_path / "vision.json").exists()


def test_a_package_of_another_shape_is_refused(language: Path, tmp_path: Path) -> None:
    lessons = make_lessons(language)
    write_package(lessons.half, config_of(lessons), tmp_path)
    lessons.half.vision.encoder.ln_pre.weight = torch.nn.Parameter(torch.ones(16))
    with pytest.raises(
        ValueError, match=r"another shape: vision_tower\.ln_pre\.weight is \(32,\), not \(16,\)"
    ):
        read_package(lessons.half, config_of(lessons), tmp_path)
