"""The decoder as training runs it says what the engine's says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mezzo.model.attention import SequenceSpan, plan_attention
from mezzo.model.decoder import Decoder
from mezzo.model.kv_cache import KVCache
from mezzo.train.decoder_pass import hidden_states
from mezzo.train.lora import TARGETS, LoraLinear, add_lora, without_lora
from tests import tiny

LENGTHS = (5, 13, 1)
# Logits are sums of 32 products near 1 in float32; the two passes multiply matrices of other heights.
TOLERANCE = 1e-5


@pytest.fixture
def decoder(tmp_path: Path) -> Decoder:
    return tiny.load(tiny.write_checkpoint(tmp_path / "tiny"))


def prompts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(0, 256, (length,), generator=generator) for length in LENGTHS]


@torch.no_grad()
def engine_logits(decoder: Decoder, token_ids: Tensor) -> Tensor:
    cache = KVCache(decoder.config, num_blocks=4, block_size=16, dtype=torch.float32, device=tiny.CPU)
    span = SequenceSpan(list(range(4)), 0, len(token_ids))
    plan = plan_attention([span], cache, decoder.config, torch.float32, tiny.CPU)
    positions = torch.arange(len(token_ids))
    logits: Tensor = decoder(token_ids, positions, plan, cache, positions)
    return logits


@torch.no_grad()
def training_logits(decoder: Decoder, token_ids: Tensor) -> Tensor:
    """token_ids (sequences, length) -> logits (sequences, length, vocab_size)."""
    hidden = hidden_states(decoder, decoder.tok_embeddings(token_ids))
    logits: Tensor = decoder.output(hidden.flatten(0, 1))
    return logits.view(*token_ids.shape, -1)


def assert_close(first: Tensor, second: Tensor, tolerance: float = TOLERANCE) -> None:
    assert first.shape == second.shape
    assert (first - second).abs().max() < tolerance


def with_random_update(decoder: Decoder) -> dict[str, torch.nn.Parameter]:
    parameters = add_lora(decoder, rank=3)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in parameters.items():
        if name.endswith(".b"):
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return parameters


def test_one_sequence_is_as_the_engine_has_it(decoder: Decoder) -> None:
    for token_ids in prompts():
        assert_close(training_logits(decoder, token_ids[None])[0], engine_logits(decoder, token_ids))


def test_a_padded_batch_is_as_the_engine_has_each(decoder: Decoder) -> None:
    batch = torch.full((len(LENGTHS), max(LENGTHS)), 99)
    for row, token_ids in zip(batch, prompts(), strict=True):
        row[: len(token_ids)] = token_ids
    logits = training_logits(decoder, batch)
    for row, token_ids in zip(logits, prompts(), strict=True):
        assert_close(row[: len(token_ids)], engine_logits(decoder, token_ids))


def test_an_update_is_what_the_merged_matrices_say(decoder: Decoder, tmp_path: Path) -> None:
    merged = tiny.load(tmp_path / "tiny")
    before = training_logits(decoder, prompts()[1][None])
    parameters = with_random_update(decoder)
    after = training_logits(decoder, prompts()[1][None])
    assert (after - before).abs().max() > 0.1
    for number in range(len(merged.layers)):
        for name in TARGETS:
            update = parameters[f"layers.{number}.{name}.b"] @ parameters[f"layers.{number}.{name}.a"]
            merged.get_parameter(f"layers.{number}.{name}.weight").data.add_(update.detach())
    # (W + B A) x and W x + B (A x) are rounded in other places.
    assert_close(after, training_logits(merged, prompts()[1][None]), 5e-5)
    assert_close(after[0], engine_logits(decoder, prompts()[1]))


def test_without_the_update_it_says_what_it_said(decoder: Decoder) -> None:
    before = training_logits(decoder, prompts()[1][None])
    with_random_update(decoder)
    after = training_logits(decoder, prompts()[1][None])
    with without_lora(decoder):
        assert_close(training_logits(decoder, prompts()[1][None]), before)
    assert torch.equal(training_logits(decoder, prompts()[1][None]), after)


def test_a_new_update_changes_nothing_and_is_all_that_learns(decoder: Decoder) -> None:
    before = training_logits(decoder, prompts()[1][None])
    parameters = add_lora(decoder, rank=3)
    assert_close(training_logits(decoder, prompts()[1][None]), before)
    hidden_states(decoder, decoder.tok_embeddings(prompts()[1][None])).sum().backward()
    learning = {id(p) for p in decoder.parameters() if p.grad is not None}
    assert learning == {id(p) for p in parameters.values()}
    assert sum(isinstance(module, LoraLinear) for module in decoder.modules()) == 2 * len(TARGETS)
