"""Whether mezzo's greedy tokens are vLLM's, for a folder that `mezzo export` wrote. Runs in mezzo's environment.

    python -m benchmarks.peers.compare_tokens FOLDER TOKENS.json

TOKENS is what `vllm_greedy.py` wrote for the same folder. Images must have edges that are whole image tokens, so that
nobody resizes them. Exits with 1 if a token differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mezzo.engine.config import EngineConfig, Vocabulary
from mezzo.engine.core import EngineCore
from mezzo.engine.loader import load_runner
from mezzo.engine.messages import AddRequest, ImageInput
from mezzo.engine.sampling_params import SamplingParams


def images_of(core: EngineCore, case: dict[str, Any]) -> tuple[ImageInput, ...]:
    """Return the case's images, each where the prompt has its tokens: row by row, with a separator after each row."""
    token_ids, position, images = case["prompt_token_ids"], 0, []
    vision = core.runner.network.config.vision
    for file in case["images"]:
        assert vision is not None, "images for a model that sees nothing"
        pixels = np.asarray(Image.open(file).convert("RGB"))
        rows, columns = (edge // vision.merged_patch_size for edge in pixels.shape[:2])
        start = token_ids.index(vision.image_token_id, position)
        position = start + rows * (columns + 1)
        images.append(
            ImageInput(
                key=file.encode(),
                start=start,
                num_tokens=position - start,
                height=pixels.shape[0],
                width=pixels.shape[1],
                pixels=pixels.tobytes(),
            )
        )
    return tuple(images)


def greedy(core: EngineCore, case: dict[str, Any]) -> list[int]:
    """Return as many greedy tokens as the case has."""
    request = AddRequest(
        request_id="r",
        prompt_token_ids=case["prompt_token_ids"],
        params=SamplingParams(max_tokens=len(case["token_ids"])),
        images=images_of(core, case),
    )
    core.add(request)
    (sequence,) = core.scheduler.waiting
    while core.has_work:
        core.step()
    return sequence.tokens_between(sequence.num_prompt, sequence.num_tokens)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("tokens", type=Path)
    options = parser.parse_args()
    config = EngineConfig(folder=options.folder, dtype="float32", kv_cache_tokens=8192)
    vocabulary = Vocabulary(token_bytes=(), eos_token_ids=frozenset())
    core = EngineCore(config, vocabulary, load_runner(config, lambda loaded, total: None))
    all_same = True
    for number, case in enumerate(json.loads(options.tokens.read_text())):
        pairs = zip(greedy(core, case), case["token_ids"], strict=True)
        num_same = next(
            (i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), len(case["token_ids"])
        )
        all_same = all_same and num_same == len(case["token_ids"])
        print(f"request {number}: the first {num_same} of {len(case['token_ids'])} tokens are the same")
    sys.exit(not all_same)


if __name__ == "__main__":
    main()
