"""A converted folder computes what the original computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from mezzo.weights import CheckpointFolder, SilentProgress, WeightsError
from mezzo.weights.convert import Origin, convert_gguf
from mezzo.weights.folder import missing_files

ORIGIN = Origin("tiny.gguf", "0" * 64)


def test_folder_holds_all_files_and_a_manifest(make_gguf: Callable[..., Path], tmp_path: Path) -> None:
    path = make_gguf(metadata={"general.license": "mit"})
    convert_gguf(path, tmp_path / "out", origin=ORIGIN, progress=SilentProgress())
    assert missing_files(tmp_path / "out") == []
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        *("config.json", "generation_config.json", "mezzo.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    assert json.loads((tmp_path / "out" / "mezzo.json").read_text()) == {
        "converter_version": 2,
        "source": "tiny.gguf",
        "sha256": "0" * 64,
        "description": "Tiny (mit)",
        "license": "mit",
    }
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == 2


def test_refused_model_leaves_no_folder(make_gguf: Callable[..., Path], tmp_path: Path) -> None:
    path = make_gguf(metadata={"tokenizer.ggml.pre": "other"})
    with pytest.raises(WeightsError, match="pre-tokenizer other"):
        convert_gguf(path, tmp_path / "out", origin=ORIGIN, progress=SilentProgress())
    assert not (tmp_path / "out").exists()


def test_more_tokens_than_embeddings_are_refused(make_gguf: Callable[..., Path], tmp_path: Path) -> None:
    path = make_gguf(
        tensors={"token_embd.weight": np.ones((200, 64), np.float32)}, metadata={"llama.vocab_size": None}
    )
    with pytest.raises(WeightsError, match="262 tokens but embeds only 200"):
        convert_gguf(path, tmp_path / "out", origin=ORIGIN, progress=SilentProgress())


def interleave(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """Store a head's rows pair by pair, as llama GGUF files do: 0 1 2 3 4 5 becomes 0 3 1 4 2 5."""
    head_dim = len(rows) // num_heads
    order = [row for i in range(head_dim // 2) for row in (i, i + head_dim // 2)]
    return np.concatenate([rows[head * head_dim :][order] for head in range(num_heads)])


GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head_dim", [16, 32])
def test_logits_equal_those_of_the_model_the_gguf_was_made_of(
    make_gguf: Callable[..., Path], tmp_path: Path, tied: bool, head_dim: int
) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(11)
    original = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=262,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=head_dim,
            max_position_embeddings=128,
            rms_norm_eps=1e-5,
            tie_word_embeddings=tied,
            initializer_range=0.3,
        )
    ).eval()
    weights = {name: tensor.numpy() for name, tensor in original.state_dict().items()}
    tensors = {
        "token_embd.weight": weights["model.embed_tokens.weight"],
        "output_norm.weight": weights["model.norm.weight"],
    }
    for layer in range(2):
        for name, gguf_name in GGUF_NAMES.items():
            values = weights[f"model.layers.{layer}.{name}.weight"]
            heads = {"attn_q": 4, "attn_k": 2}.get(gguf_name)
            tensors[f"blk.{layer}.{gguf_name}.weight"] = interleave(values, heads) if heads else values
    if not tied:
        tensors["output.weight"] = weights["lm_head.weight"]
    path = make_gguf(head_dim=head_dim, tied=tied, tensors=tensors)
    convert_gguf(path, tmp_path / "out", origin=ORIGIN, progress=SilentProgress())

    converted = LlamaForCausalLM.from_pretrained(tmp_path / "out").eval()

    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        expected, actual = original(ids).logits, converted(ids).logits
    assert expected.std() > 0.1
    assert torch.equal(actual, expected)


@pytest.mark.slow
def test_nano_answers_through_transformers(nano_folder: CheckpointFolder) -> None:
    """The real file, whose row order and tokenizer were made by others, gives sensible text."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(nano_folder.path)
    model = AutoModelForImageTextToText.from_pretrained(nano_folder.path).eval()
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        tokenize=False,
    )
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
    text = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=False)
    assert "Paris" in text
    assert text.endswith("<|im_end|>")


@pytest.mark.slow
def test_nano_is_float32_and_tied(nano_folder: CheckpointFolder) -> None:
    with safe_open(nano_folder.path / "model.safetensors", framework="numpy") as file:
        names = set(file.keys())
        assert {file.get_slice(name).get_dtype() for name in names} == {"F32"}
        assert not any("lm_head" in name or "lora" in name for name in names)
        assert len([name for name in names if name.startswith("language_model.model.")]) == 2 + 30 * 9
