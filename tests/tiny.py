"""A model small enough to run thousands of steps in a test, with the real code around it, and a byte tokenizer."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence as ListOf
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.core import EngineCore
from mezzo.engine.messages import AddRequest, SequenceOutput
from mezzo.engine.runner import Runner
from mezzo.engine.sampling_params import SamplingParams
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.decoder import Decoder
from mezzo.model.kv_cache import KVCache
from mezzo.model.layout import HF_MULTIMODAL_SAVED
from mezzo.model.network import Network
from mezzo.model.packed_weights import QuantizedNetwork
from mezzo.model.quantized_kv_cache import QuantizedKVCache

CPU = torch.device("cpu")
EOS = 256
"""The one control token; ids below it are bytes."""
VOCAB_SIZE = 260
"""Three rows of the head stand for nothing: real checkpoints pad theirs too."""
VOCABULARY = Vocabulary(token_bytes=(*(bytes([i]) for i in range(256)), b""), eos_token_ids=frozenset({EOS}))

HF_CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "eos_token_id": EOS,
}

MULTIMODAL_CONFIG: dict[str, Any] = {
    "model_type": "mistral3",
    "text_config": HF_CONFIG | {"model_type": "mistral", "sliding_window": None},
    "vision_config": {
        "model_type": "pixtral",
        "hidden_size": 16,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 4,
    },
    "spatial_merge_size": 2,
    "image_token_index": 257,
    "tie_word_embeddings": False,
}
"""With eyes: one token of an image is 8 pixels wide and high, its id is 257."""


def random_weights(config: ModelConfig, seed: int = 0, scale: float = 0.3) -> dict[str, torch.Tensor]:
    """Return weights in the Hugging Face layout, large enough that attention and logits are far from uniform."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    kv_rows = config.n_kv_heads * config.head_dim
    query_rows = config.n_heads * config.head_dim
    weights = {
        "model.embed_tokens.weight": normal(config.vocab_size, config.dim),
        "model.norm.weight": 1 + normal(config.dim),
    }
    if not config.tied_embeddings:
        weights["lm_head.weight"] = normal(config.vocab_size, config.dim)
    for layer in range(config.n_layers):
        weights |= {
            f"model.layers.{layer}.{name}": tensor
            for name, tensor in {
                "input_layernorm.weight": 1 + normal(config.dim),
                "post_attention_layernorm.weight": 1 + normal(config.dim),
                "self_attn.q_proj.weight": normal(query_rows, config.dim),
                "self_attn.k_proj.weight": normal(kv_rows, config.dim),
                "self_attn.v_proj.weight": normal(kv_rows, config.dim),
                "self_attn.o_proj.weight": normal(config.dim, query_rows),
                "mlp.gate_proj.weight": normal(config.hidden_dim, config.dim),
                "mlp.up_proj.weight": normal(config.hidden_dim, config.dim),
                "mlp.down_proj.weight": normal(config.dim, config.hidden_dim),
            }.items()
        }
    if config.vision is not None:
        weights = {
            f"language_model.{name}": tensor for name, tensor in weights.items()
        } | random_vision_weights(config, seed + 1, scale)
    return weights


def random_vision_weights(config: ModelConfig, seed: int, scale: float) -> dict[str, torch.Tensor]:
    """Return weights of the vision half in the Hugging Face layout."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        parameters = dict(Network.from_config(config, torch.float32).named_parameters())
    weights = {}
    for name, place in HF_MULTIMODAL_SAVED.places(config, parameters).items():
        if place.parameter.startswith("vision."):
            shape = place.rows_of(parameters[place.parameter]).shape
            noise = torch.randn(shape, generator=generator) * scale
            weights[name] = 1 + noise if "norm" in name or "ln_pre" in name else noise
    return weights


def write_checkpoint(folder: Path, **changes: Any) -> Path:
    """Write a random checkpoint; `changes` are fields of its config.json.

    `write_checkpoint(folder, **MULTIMODAL_CONFIG)` writes one with eyes.
    """
    raw = changes if "text_config" in changes else HF_CONFIG | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(random_weights(ModelConfig.from_hf(raw)), folder / "model.safetensors")
    return folder


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Decoder:
    return load_with_eyes(folder, dtype).decoder


def load_with_eyes(folder: Path, dtype: torch.dtype = torch.float32) -> Network:
    return load_network(folder, ModelConfig.from_folder(folder), dtype=dtype, device=CPU)


def make_core(
    model: Decoder | Network | QuantizedNetwork,
    *,
    num_blocks: int = 64,
    block_size: int = 16,
    max_num_seqs: int = 8,
    max_step_tokens: int = 32,
    image_cache_tokens: int = 1000,
    max_draft_tokens: int = 32,
    prefix_cache: bool = True,
    vocabulary: Vocabulary = VOCABULARY,
) -> EngineCore:
    """Make an engine core with a cache of its own around a model."""
    network = Network(model) if isinstance(model, Decoder) else model
    config = EngineConfig(
        folder="unused",
        max_num_seqs=max_num_seqs,
        max_step_tokens=max_step_tokens,
        block_size=block_size,
        image_cache_tokens=image_cache_tokens,
        max_draft_tokens=max_draft_tokens,
        prefix_cache=prefix_cache,
    )
    cache: KVCache | QuantizedKVCache
    if isinstance(network, QuantizedNetwork):
        cache = QuantizedKVCache(network.config, num_blocks=num_blocks, block_size=block_size)
    else:
        cache = KVCache(
            network.config,
            num_blocks=num_blocks,
            block_size=block_size,
            dtype=network.decoder.dtype,
            device=CPU,
        )
    return EngineCore(config, vocabulary, Runner(network, cache))


def make_request(
    request_id: str = "r",
    prompt: ListOf[int] | bytes = b"Hello there",
    *,
    n: int = 1,
    prediction: ListOf[int] | bytes = b"",
    cache_salt: bytes | None = None,
    **params: Any,
) -> AddRequest:
    """Make a request; greedy and of 16 tokens unless told otherwise."""
    return AddRequest(
        request_id=request_id,
        prompt_token_ids=list(prompt),
        params=SamplingParams(**{"max_tokens": 16, **params}),
        n=n,
        prediction_token_ids=list(prediction),
        cache_salt=cache_salt,
    )


class Collected:
    """The outputs of many steps, by request and choice, with the rules of outputs checked on the way."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, int], str] = {}
        self.num_tokens: dict[tuple[str, int], int] = {}
        self.reasons: dict[tuple[str, int], str] = {}

    def take(self, outputs: list[SequenceOutput]) -> None:
        for output in outputs:
            key = (output.request_id, output.index)
            assert key not in self.reasons, f"an output of {key} after its last"
            self.texts[key] = self.texts.get(key, "") + output.text
            self.num_tokens[key] = self.num_tokens.get(key, 0) + output.num_tokens
            if output.finish_reason is not None:
                self.reasons[key] = output.finish_reason


def run(core: EngineCore, *requests: AddRequest, max_steps: int = 5000) -> Collected:
    """Add requests, step until nothing is left to do, and check the books after every step."""
    collected = Collected()
    for request in requests:
        core.add(request)
    for _ in range(max_steps):
        while core.is_compiling and not core.has_work:
            time.sleep(0.001)
        if not core.has_work:
            break
        collected.take(core.step())
        core.scheduler.check_integrity()
    assert not core.has_work, "the engine does not come to an end"
    expected = {(request.request_id, index) for request in requests for index in range(request.n)}
    assert set(collected.reasons) == expected, "a choice without an end"
    assert core.scheduler.pool.num_free == core.scheduler.pool.num_blocks
    return collected
