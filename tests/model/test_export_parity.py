"""Exported checkpoints against transformers: it loads them, nothing missing or left over, and computes the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaForConditionalGeneration,
    Mistral3ForConditionalGeneration,
)

from mezzo.model.config import ModelConfig
from mezzo.model.export import load_for_export, write_checkpoint
from mezzo.weights import CheckpointFolder, companion_files
from tests.model.test_export import EYES, LINEAR, TEXTS, assert_same_tensors, network_of, tensors_of
from tests.model.test_parity import Run
from tests.tiny import HF_CONFIG
from tests.tiny import write_checkpoint as write_random

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", [*TEXTS, "linear"])
def test_computes_the_same_logits(tmp_path: Path, case: str) -> None:
    network = network_of(write_random(tmp_path / "given", **(TEXTS | {"linear": LINEAR})[case]))
    write_checkpoint(network, tmp_path / "out", max_shard_bytes=20_000, source=tmp_path / "given")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    ids = torch.randint(256, (100,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs = reference(ids[None]).logits[0]
    ours = Run(network.decoder).step({0: ids})
    assert theirs.abs().max() > 1
    assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("case", EYES)
def test_sees_the_same(tmp_path: Path, case: str) -> None:
    network = network_of(write_random(tmp_path / "given", **EYES[case]))
    write_checkpoint(network, tmp_path / "out", source=tmp_path / "given")
    made = {"mistral3": Mistral3ForConditionalGeneration, "llava": LlavaForConditionalGeneration}[case]
    reference, info = made.from_pretrained(tmp_path / "out", dtype=torch.float32, output_loading_info=True)
    ids = torch.randint(256, (50,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs = reference.eval()(input_ids=ids[None]).logits[0]
    assert (Run(network.decoder).step({0: ids}) - theirs).abs().max() < 1e-4
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert ModelConfig.from_hf(json.loads(reference.config.to_json_string())) == network.config
    reference.save_pretrained(tmp_path / "theirs")
    assert_same_tensors(tmp_path / "given", tmp_path / "theirs")


def test_knows_the_special_tokens_and_the_number_format(tmp_path: Path) -> None:
    network = load_for_export(write_random(tmp_path / "given", bos_token_id=255), "bfloat16")
    write_checkpoint(network, tmp_path / "out", source=tmp_path / "given")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (255, HF_CONFIG["eos_token_id"])
    assert (config["dtype"], config["architectures"]) == ("bfloat16", ["LlamaForCausalLM"])
    assert {tensor.dtype for tensor in tensors_of(tmp_path / "out").values()} == {torch.bfloat16}


def test_nano(tmp_path: Path, nano_folder: CheckpointFolder) -> None:
    network = network_of(nano_folder.path)
    write_checkpoint(
        network,
        tmp_path / "out",
        max_shard_bytes=300_000_000,
        source=nano_folder.path,
        companions=companion_files(nano_folder.path),
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    reference = Mistral3ForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    with torch.inference_mode():
        theirs = reference(torch.tensor([ids])).logits[0]
    ours = Run(network.decoder).step({0: torch.tensor(ids)})
    # Thirty layers of float32 sums in another order, on logits of up to 30.
    assert (ours - theirs).abs().max() < 1e-3
