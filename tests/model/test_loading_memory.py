"""Loading takes little more memory than what is loaded.

A fresh process loads a synthetic checkpoint in several shards. What is measured is the highest resident memory between
the moment before loading and its end, anonymous and file-mapped pages together, over what there was before. Run with
-s to see the figures.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.layouts import FP8, HF_FP8, native, write

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks are measured through Linux's /proc"
)

MOST = 1.15
# 145 million numbers, 290 or 580 MB: large enough that a megabyte here or there does not decide.
RAW: dict[str, Any] = {
    "model_type": "mistral", "vocab_size": 12000, "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 10, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64,
    "sliding_window": None, "max_position_embeddings": 256, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
}  # fmt: skip
PARAMS: dict[str, Any] = {
    "dim": 1024, "n_layers": 10, "head_dim": 64, "hidden_dim": 3072, "n_heads": 16, "n_kv_heads": 4,
    "vocab_size": 12000, "norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip
LOAD = """
import sys
from pathlib import Path
import torch
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig

def status(key):
    with open("/proc/self/status") as lines:
        return 1024 * int(dict(line.split(":", 1) for line in lines)[key].split()[0])

torch.set_num_threads(1)
config = ModelConfig.from_folder(Path(sys.argv[1]))
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = status("RssAnon") + status("RssFile")
network = load_network(
    Path(sys.argv[1]), config, dtype=getattr(torch, sys.argv[2]), device=torch.device("cpu")
)
size = sum(parameter.nbytes for parameter in network.parameters())
print((status("VmHWM") - before) / size, size)
"""


def shards(stored: torch.dtype, num_shards: int = 3) -> dict[str, dict[str, torch.Tensor]]:
    """Make weights of ones; FP8 matrices have scales of one."""
    dim, inner, vocab = RAW["hidden_size"], RAW["intermediate_size"], RAW["vocab_size"]
    plain = torch.bfloat16 if stored is FP8 else stored
    sizes = {
        "self_attn.q_proj": (1024, dim), "self_attn.k_proj": (256, dim), "self_attn.v_proj": (256, dim),
        "self_attn.o_proj": (dim, 1024), "mlp.gate_proj": (inner, dim), "mlp.up_proj": (inner, dim),
        "mlp.down_proj": (dim, inner),
    }  # fmt: skip
    tensors = {
        "model.embed_tokens.weight": torch.ones(vocab, dim, dtype=plain),
        "lm_head.weight": torch.ones(vocab, dim, dtype=plain),
        "model.norm.weight": torch.ones(dim, dtype=plain),
    }
    for layer in range(RAW["num_hidden_layers"]):
        start = f"model.layers.{layer}."
        tensors |= {
            f"{start}{norm}_layernorm.weight": torch.ones(dim, dtype=plain)
            for norm in ("input", "post_attention")
        }
        for name, shape in sizes.items():
            tensors[f"{start}{name}.weight"] = torch.ones(shape).to(stored)
            if stored is FP8:
                tensors[f"{start}{name}.weight_scale_inv"] = torch.ones(())
    names = list(tensors)
    return {
        f"model-{i + 1:05}-of-{num_shards:05}.safetensors": {
            name: tensors[name] for name in names[i::num_shards]
        }
        for i in range(num_shards)
    }


def in_blocks(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give each FP8 matrix a scale for every 128 x 128 numbers instead of one."""
    made = {name: tensor for name, tensor in tensors.items() if not name.endswith("weight_scale_inv")}
    for name in [name for name, tensor in made.items() if tensor.dtype is FP8]:
        rows, columns = made[name].shape
        made[f"{name}_scale_inv"] = torch.ones(-(-rows // 128), -(-columns // 128))
    return made


@pytest.mark.parametrize(
    ("stored", "loaded", "layout"),
    [
        (torch.bfloat16, "bfloat16", "hf"),
        (torch.float32, "float32", "hf"),
        (torch.float32, "bfloat16", "hf"),
        (torch.bfloat16, "float32", "hf"),
        (FP8, "bfloat16", "hf"),
        (torch.bfloat16, "bfloat16", "mistral"),
        (FP8, "bfloat16", "mistral"),
        (FP8, "bfloat16", "hf in blocks"),
    ],
)
def test_peak(tmp_path: Path, stored: torch.dtype, loaded: str, layout: str) -> None:
    files = shards(stored)
    if layout == "hf in blocks":
        quantization = {"quantization_config": HF_FP8 | {"weight_block_size": [128, 128]}}
        write(
            tmp_path, RAW | quantization, {name: in_blocks(file) for name, file in files.items()}, index=True
        )
    elif layout == "mistral":
        quantization = {"quantization": {"qformat_weight": "fp8_e4m3"}} if stored is FP8 else {}
        renamed = {name.replace("model", "consolidated"): native(tensors) for name, tensors in files.items()}
        write(tmp_path, PARAMS | quantization, renamed)
    else:
        write(tmp_path, RAW | ({"quantization_config": HF_FP8} if stored is FP8 else {}), files, index=True)
    del files
    output = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path), loaded],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    ratio, size = float(output[0]), int(output[1])
    print(f"{layout} {stored} -> {loaded}: {ratio:.3f} x {size / 1e6:.0f} MB")  # noqa: T201
    assert 0.99 < ratio < MOST
