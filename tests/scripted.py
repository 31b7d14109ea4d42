"""Checkpoints that say what a test wants: real weights, a real tokenizer and prompt format, an answer known before.

Attention and feed-forward are zero, so what comes next depends on the last token alone; embeddings and head map each
token of a script to the one after it. A greedy answer follows the script that begins at the prompt's last token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from safetensors.torch import save_file

from tests.prompt.mistral.tokenizers import write_tekken

_DIM = 128
_NUM_TEXT_TOKENS = 30_000  # with fewer, quotes and brackets have too few tokens to be told apart by


def write_scripted_checkpoint(folder: Path, version: str, scripts: Mapping[str, Sequence[str]]) -> Path:
    """Write a checkpoint with Mistral's tokenizer of a version, such as `v13`.

    scripts: the answers, as control tokens and texts in order, by the control token that a prompt ends with. No token
    stands in them twice, since it could not know what comes after it: texts are cut into tokens that are still unused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = write_tekken(folder / "tekken.json", version, num_text_tokens=_NUM_TEXT_TOKENS)
    tokenizer = Tekkenizer.from_file(str(file))
    transitions: dict[int, int] = {}
    for beginning, parts in scripts.items():
        token_ids = [tokenizer.get_special_token(beginning)]
        for part in parts:
            token_ids += _encode(tokenizer, part, {*transitions, *token_ids})
        for token_id, following in pairwise([*token_ids, tokenizer.eos_id]):
            assert token_id not in transitions, f"{tokenizer.id_to_piece(token_id)!r} is in a script twice"
            transitions[token_id] = following
    (folder / "config.json").write_text(json.dumps(_config(tokenizer.n_words)))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.eos_id}))
    save_file(_weights(tokenizer.n_words, transitions), folder / "model.safetensors")
    return folder


def _encode(tokenizer: Tekkenizer, part: str, used: set[int]) -> list[int]:
    if tokenizer.is_special(part):
        return [tokenizer.get_special_token(part)]
    pieces = {
        tokenizer.id_to_byte_piece(token_id): token_id
        for token_id in range(tokenizer.num_special_tokens, tokenizer.n_words)
        if token_id not in used
    }
    token_ids = _cut(part.encode(), pieces, set())
    assert token_ids is not None, f"there are not enough tokens for {part!r}"
    return token_ids


def _cut(text: bytes, pieces: Mapping[bytes, int], used: set[int]) -> list[int] | None:
    """Cut a text into pieces, long ones first, each at most once."""
    if not text:
        return []
    for length in range(len(text), 0, -1):
        token_id = pieces.get(text[:length])
        if token_id is None or token_id in used:
            continue
        rest = _cut(text[length:], pieces, used | {token_id})
        if rest is not None:
            return [token_id, *rest]
    return None


def _config(vocab_size: int) -> dict[str, Any]:
    return {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "vocab_size": vocab_size,
        "hidden_size": _DIM,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
    }


def _weights(vocab_size: int, transitions: Mapping[int, int]) -> dict[str, torch.Tensor]:
    assert len(transitions) <= _DIM, "a script longer than the model is wide"
    embeddings = torch.zeros(vocab_size, _DIM)
    head = torch.zeros(vocab_size, _DIM)
    for place, (token_id, following) in enumerate(transitions.items()):
        embeddings[token_id, place] = 1
        head[following, place] += 10
    layer = {
        "input_layernorm": torch.ones(_DIM),
        "post_attention_layernorm": torch.ones(_DIM),
        "self_attn.q_proj": torch.zeros(32, _DIM),
        "self_attn.k_proj": torch.zeros(16, _DIM),
        "self_attn.v_proj": torch.zeros(16, _DIM),
        "self_attn.o_proj": torch.zeros(_DIM, 32),
        "mlp.gate_proj": torch.zeros(8, _DIM),
        "mlp.up_proj": torch.zeros(8, _DIM),
        "mlp.down_proj": torch.zeros(_DIM, 8),
    }
    return {
        "model.embed_tokens.weight": embeddings,
        "model.norm.weight": torch.ones(_DIM),
        "lm_head.weight": head,
    } | {f"model.layers.0.{name}.weight": tensor for name, tensor in layer.items()}
