"""Logits of the decoder against `transformers`, on random small configurations, in float32.

Each configuration is saved by `transformers` and loaded by mezzo, so reading the configuration and the weights
is tested with it. Prefill, chunked prefill and step-by-step decoding over the paged cache must all agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Ministral3Config,
    Ministral3ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from mezzo.model.attention import SequenceSpan, plan_attention
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.decoder import Decoder
from mezzo.model.kv_cache import KVCache

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4  # absolute, on logits of unit scale in float32
CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "vocab_size": 160, "hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "initializer_range": 0.15,  # large enough that attention is not uniform
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 32,
        "beta_fast": 32.0, "beta_slow": 1.0}  # fmt: skip
LLAMA, MISTRAL, MINISTRAL3 = (
    (LlamaConfig, LlamaForCausalLM),
    (MistralConfig, MistralForCausalLM),
    (Ministral3Config, Ministral3ForCausalLM),
)
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
MSCALE = {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
OTHER_MSCALE = {**YARN, "mscale": 0.7, "mscale_all_dim": 1.2, "llama_4_scaling_beta": 0.4}
UNTRUNCATED = {**YARN, "truncate": False, "attention_factor": 1.3}
CASES: dict[str, tuple[tuple[Any, Any], dict[str, Any]]] = {
    "llama": (LLAMA, {}),
    "llama-tied": (LLAMA, {"tie_word_embeddings": True, "rope_theta": 100000.0}),
    "llama-own-head-dim": (LLAMA, {"head_dim": 20}),
    "llama-linear": (LLAMA, {"rope_parameters": LINEAR}),
    "llama-multi-head": (LLAMA, {"num_key_value_heads": 6, "rms_norm_eps": 1e-3}),
    "llama-multi-query": (LLAMA, {"num_key_value_heads": 1, "num_hidden_layers": 1}),
    "llama-yarn": (LLAMA, {"rope_parameters": YARN}),
    "mistral": (MISTRAL, {"sliding_window": None, "head_dim": 16}),
    "mistral-window": (MISTRAL, {"sliding_window": 7, "head_dim": 12}),
    "mistral-window-one": (MISTRAL, {"sliding_window": 1}),
    "mistral-yarn-untruncated": (MISTRAL, {"sliding_window": None, "rope_parameters": UNTRUNCATED}),
    "ministral3": (MINISTRAL3, {"head_dim": 16, "rope_parameters": MSCALE}),
    "ministral3-tied": (
        MINISTRAL3,
        {"head_dim": 8, "tie_word_embeddings": True, "rope_parameters": OTHER_MSCALE},
    ),
}


@pytest.fixture(params=CASES, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Decoder]:
    (config_class, model_class), changes = CASES[request.param]
    torch.manual_seed(sum(map(ord, request.param)))
    reference = model_class(config_class(**{**SIZES, **changes})).eval()
    folder: Path = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(folder)
    config = ModelConfig.from_folder(folder)
    return reference, load_network(folder, config, dtype=torch.float32, device=CPU).decoder


def reference_logits(reference: Any, token_ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return reference(token_ids[None]).logits[0]


class Run:
    """Feeds one or more sequences to a decoder in steps of the caller's choice."""

    def __init__(self, decoder: Decoder, num_sequences: int = 1) -> None:
        self.decoder = decoder
        self.cache = KVCache(decoder.config, num_blocks=64, block_size=16, dtype=torch.float32, device=CPU)
        shuffled = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
        self.tables = [shuffled[i * 12 : (i + 1) * 12] for i in range(num_sequences)]
        self.lengths = [0] * num_sequences

    def step(self, chunks: dict[int, torch.Tensor], **images: torch.Tensor) -> torch.Tensor:
        spans = [SequenceSpan(self.tables[i], self.lengths[i], len(ids)) for i, ids in chunks.items()]
        plan = plan_attention(spans, self.cache, self.decoder.config, torch.float32, CPU)
        token_ids = torch.cat(list(chunks.values()))
        positions = torch.cat([torch.arange(s.num_context, s.num_context + s.num_new) for s in spans])
        for i, ids in chunks.items():
            self.lengths[i] += len(ids)
        with torch.inference_mode():
            rows = torch.arange(len(token_ids))
            return self.decoder(token_ids, positions, plan, self.cache, rows, **images)


def tokens(length: int, seed: int) -> torch.Tensor:
    return torch.randint(SIZES["vocab_size"], (length,), generator=torch.Generator().manual_seed(seed))


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.1, "degenerate reference"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


def test_whole_prompt(pair: tuple[Any, Decoder]) -> None:
    ids = tokens(150, 1)
    assert_close(Run(pair[1]).step({0: ids}), reference_logits(pair[0], ids))


@pytest.mark.parametrize("chunk", [1, 7, 16, 64])
def test_chunked_prompt_and_decode(pair: tuple[Any, Decoder], chunk: int) -> None:
    ids = tokens(100, 2)
    run = Run(pair[1])
    ours = torch.cat([run.step({0: part}) for part in ids.split(chunk)])
    assert_close(ours, reference_logits(pair[0], ids))


def test_ragged_batch(pair: tuple[Any, Decoder]) -> None:
    """Three sequences at different lengths, prefilling and decoding in the same steps."""
    ids = [tokens(90, 3), tokens(40, 4), tokens(130, 5)]
    run = Run(pair[1], num_sequences=3)
    ours: list[list[torch.Tensor]] = [[], [], []]
    schedule = [
        {0: 50},
        {0: 1, 1: 20},
        {0: 1, 1: 1, 2: 33},
        {1: 1, 0: 1, 2: 64},
        {0: 1, 1: 1, 2: 1},
        {2: 5, 1: 7},
    ]
    for lengths in schedule:
        chunks = {i: ids[i][run.lengths[i] : run.lengths[i] + n] for i, n in lengths.items()}
        logits = run.step(chunks).split(list(lengths.values()))
        for i, part in zip(lengths, logits, strict=True):
            ours[i].append(part)
    for i in range(3):
        assert_close(torch.cat(ours[i]), reference_logits(pair[0], ids[i])[: run.lengths[i]])


def test_positions_beyond_the_original_context(pair: tuple[Any, Decoder]) -> None:
    """Where YaRN interpolates and Ministral 3 scales its queries."""
    ids = tokens(190, 6)
    run = Run(pair[1])
    ours = torch.cat([run.step({0: ids[:150]}), run.step({0: ids[150:]})])
    assert_close(ours, reference_logits(pair[0], ids))
