"""The update in PEFT's form: weights plus B A, matrix by matrix, are the merged checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.documents.small import chat_checkpoint, documents_run, three_lines, train


@pytest.mark.parametrize("sees", [False, True])
def test_adapter_and_checkpoint_are_the_same_update(tmp_path: Path, sees: bool) -> None:
    weights = chat_checkpoint(tmp_path / "weights", sees=sees)
    run = documents_run(tmp_path / "run", three_lines(tmp_path / "data.jsonl"), weights, epochs=3, rank=2)
    checkpoint = train(run)
    adapter = load_file(run.folder / "adapter" / "adapter_model.safetensors")
    settings = json.loads((run.folder / "adapter" / "adapter_config.json").read_text())
    assert settings["lora_alpha"] / settings["r"] == 1
    base, merged = (load_file(folder / "model.safetensors") for folder in (weights, checkpoint))
    matrices = sorted({name.rpartition(".lora_")[0] for name in adapter})
    assert len(adapter) == 2 * len(matrices) == 2 * 2 * 7
    for matrix in matrices:
        # PEFT names modules as transformers has them in memory, checkpoints as it saves them.
        stored = matrix.removeprefix("base_model.model.").replace(
            "model.language_model.", "language_model.model."
        )
        a, b = (adapter[f"{matrix}.lora_{part}.weight"] for part in "AB")
        assert b.abs().max() > 0
        torch.testing.assert_close(base[f"{stored}.weight"] + b @ a, merged[f"{stored}.weight"])
        assert any(matrix.endswith(f".{target}") for target in settings["target_modules"])


@pytest.mark.slow
@pytest.mark.parametrize("sees", [False, True])
def test_modules_are_those_of_transformers(tmp_path: Path, sees: bool) -> None:
    """PEFT finds modules by these names; it is no dependency, so names and shapes are compared with the classes'."""
    import transformers

    weights = chat_checkpoint(tmp_path / "weights", sees=sees)
    run = documents_run(tmp_path / "run", three_lines(tmp_path / "data.jsonl"), weights, epochs=1, rank=2)
    train(run)
    kind = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    modules = dict(kind.from_pretrained(run.checkpoint).named_modules())
    adapter = load_file(run.folder / "adapter" / "adapter_model.safetensors")
    targets = json.loads((run.folder / "adapter" / "adapter_config.json").read_text())["target_modules"]
    for name, tensor in adapter.items():
        module = modules[name.removeprefix("base_model.model.").rpartition(".lora_")[0]]
        edge = 1 if ".lora_A." in name else 0
        assert module.weight.shape[edge] == tensor.shape[edge]
    matched = {name for name in modules if any(name.endswith(f".{target}") for target in targets)}
    assert matched == {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in adapter}
