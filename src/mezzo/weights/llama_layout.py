"""How a llama GGUF maps to the layout of a Hugging Face checkpoint: config.json, names, order of rows.

Metadata that would change the computation and that is not understood is refused, never ignored.
Source: the GGUF specification (architecture `llama`); transformers' LlamaConfig for the names written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mezzo.weights.errors import WeightsError
from mezzo.weights.gguf_file import GgufFile, GgufTensor

UNDERSTOOD = frozenset(
    {
        "llama.block_count",
        "llama.context_length",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.attention.key_length",
        "llama.attention.value_length",
        "llama.attention.layer_norm_rms_epsilon",
        "llama.rope.freq_base",
        "llama.rope.dimension_count",
        "llama.vocab_size",
    }
)


@dataclass(frozen=True)
class MappedTensor:
    """One tensor of the checkpoint and where it comes from.

    num_interleaved_heads   heads whose rows have to be reordered (queries and keys), 0 for other tensors
    """

    name: str
    source: GgufTensor
    num_interleaved_heads: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    def read(self) -> NDArray[np.float32]:
        """Return the values in float32, rows in the checkpoint's order."""
        values = self.source.read()
        if self.num_interleaved_heads:
            return split_halves(values, self.num_interleaved_heads)
        return values


def split_halves(rows: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """Reorder each head's rows from rotary pairs side by side to pairs half a head apart.

    Shapes: rows (num_heads * head_dim, columns), the result likewise. With head_dim 6, the rows of a head
    stored as 0 3 1 4 2 5 (pairs 0-3, 1-4, 2-5) come out as 0 1 2 3 4 5.
    """
    num_rows, num_columns = rows.shape
    pairs = rows.reshape(num_heads, num_rows // num_heads // 2, 2, num_columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def llama_config(file: GgufFile) -> dict[str, Any]:
    """Build config.json. Raises: WeightsError for another architecture or metadata that is not understood."""
    architecture = file.get("general.architecture")
    if architecture != "llama":
        raise WeightsError(
            f"{file.path.name} holds a model of architecture {architecture}; only llama is supported."
        )
    _refuse_unknown_metadata(file)
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise WeightsError(f"{file.path.name} lacks the tensor token_embd.weight.")
    hidden_size = file.integer("llama.embedding_length")
    num_heads = file.integer("llama.attention.head_count")
    head_dim = file.integer("llama.attention.key_length", hidden_size // max(1, num_heads))
    vocab_size = embedding.shape[0]
    for key, expected in (
        ("llama.attention.value_length", head_dim),
        ("llama.rope.dimension_count", head_dim),
        ("llama.vocab_size", vocab_size),
    ):
        if file.integer(key, expected) != expected:
            raise file.invalid(key, file.get(key))
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": file.integer("llama.feed_forward_length"),
        "num_hidden_layers": file.integer("llama.block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": file.integer("llama.attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": file.decimal("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": file.decimal("llama.rope.freq_base", 10000.0),
        "max_position_embeddings": file.integer("llama.context_length"),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    for name, value in config.items():
        if type(value) is int and value < 1:
            raise WeightsError(f"{file.path.name} gives {name} = {value}; it must be at least 1.")
    return config | special_token_ids(file, vocab_size)


def special_token_ids(file: GgufFile, vocab_size: int) -> dict[str, int]:
    """Read the ids of the special tokens the file names, under the checkpoint's names for them."""
    ids = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        token_id = file.get(f"tokenizer.ggml.{key}_token_id")
        if token_id is not None:
            if not 0 <= token_id < vocab_size:
                raise file.invalid(f"tokenizer.ggml.{key}_token_id", token_id)
            ids[f"{name}_token_id"] = token_id
    return ids


def map_tensors(file: GgufFile, config: dict[str, Any]) -> list[MappedTensor]:
    """Pair every tensor of the checkpoint with the GGUF's. Raises: WeightsError for any missing, left over
    or of another shape than the configuration gives."""
    left = dict(file.tensors)
    mapped = []
    for name, source_name, shape, num_interleaved_heads in _expected_tensors(config):
        source = left.pop(source_name, None)
        if source is None:
            raise WeightsError(f"{file.path.name} lacks the tensor {source_name}.")
        if source.shape != shape:
            raise WeightsError(
                f"Tensor {source_name} of {file.path.name} has shape {source.shape}; "
                f"its metadata gives {shape}."
            )
        mapped.append(MappedTensor(name, source, num_interleaved_heads))
    if left:
        raise WeightsError(
            f"{file.path.name} has tensors that a llama checkpoint has no place for: "
            f"{', '.join(sorted(left)[:5])}."
        )
    return mapped


def _expected_tensors(config: dict[str, Any]) -> list[tuple[str, str, tuple[int, ...], int]]:
    """List (checkpoint name, GGUF name, shape, heads whose rows are interleaved)."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    num_heads, num_kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    queries, keys = num_heads * config["head_dim"], num_kv_heads * config["head_dim"]
    expected: list[tuple[str, str, tuple[int, ...], int]] = [
        ("model.embed_tokens.weight", "token_embd.weight", (vocab, hidden), 0)
    ]
    for layer in range(config["num_hidden_layers"]):
        here, there = f"model.layers.{layer}", f"blk.{layer}"
        expected += [
            (f"{here}.input_layernorm.weight", f"{there}.attn_norm.weight", (hidden,), 0),
            (f"{here}.self_attn.q_proj.weight", f"{there}.attn_q.weight", (queries, hidden), num_heads),
            (f"{here}.self_attn.k_proj.weight", f"{there}.attn_k.weight", (keys, hidden), num_kv_heads),
            (f"{here}.self_attn.v_proj.weight", f"{there}.attn_v.weight", (keys, hidden), 0),
            (f"{here}.self_attn.o_proj.weight", f"{there}.attn_output.weight", (hidden, queries), 0),
            (f"{here}.post_attention_layernorm.weight", f"{there}.ffn_norm.weight", (hidden,), 0),
            (f"{here}.mlp.gate_proj.weight", f"{there}.ffn_gate.weight", (inner, hidden), 0),
            (f"{here}.mlp.up_proj.weight", f"{there}.ffn_up.weight", (inner, hidden), 0),
            (f"{here}.mlp.down_proj.weight", f"{there}.ffn_down.weight", (hidden, inner), 0),
        ]
    expected.append(("model.norm.weight", "output_norm.weight", (hidden,), 0))
    if not config["tie_word_embeddings"]:
        expected.append(("lm_head.weight", "output.weight", (vocab, hidden), 0))
    return expected


def _refuse_unknown_metadata(file: GgufFile) -> None:
    """Refuse by name a key that may, for all we know, scale angles, add experts or clamp values."""
    harmless = {"llama.rope.scaling.type": "none", "llama.expert_count": 0, "llama.expert_used_count": 0}
    for key in file.keys():  # noqa: SIM118 - not a mapping
        if not key.startswith("llama.") or key in UNDERSTOOD:
            continue
        if key not in harmless or file.get(key) != harmless[key]:
            raise file.invalid(key, file.get(key))
