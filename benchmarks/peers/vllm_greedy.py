"""Greedy tokens of vLLM for some requests: the other half of `compare_tokens.py`. Runs in vLLM's environment.

    vllm/bin/python vllm_greedy.py FOLDER REQUESTS.json TOKENS.json [--layout mistral]

REQUESTS is a list of `{"messages": [...]}`, or of `{"prompt_token_ids": [...], "images": [PNG file, ...]}` with one
image token for each image. TOKENS gets the prompts as vLLM expanded them, and 32 tokens each, in float32.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

NUM_TOKENS = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("requests", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--layout", choices=["hf", "mistral"], default="hf")
    options = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    from PIL import Image  # noqa: PLC0415  after the environment is set, and only where vLLM is
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]  # noqa: PLC0415

    native: dict[str, Any] = {}
    if options.layout == "mistral":
        native = {"config_format": "mistral", "load_format": "mistral", "tokenizer_mode": "mistral"}
    model = LLM(
        options.folder, dtype="float32", enforce_eager=True, max_model_len=4096, max_num_seqs=8, **native
    )
    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
    answers = []
    for request in json.loads(options.requests.read_text()):
        if "messages" in request:
            (output,) = model.chat(request["messages"], params)
        else:
            prompt: dict[str, Any] = {"prompt_token_ids": request["prompt_token_ids"]}
            if request.get("images"):
                prompt["multi_modal_data"] = {"image": [Image.open(file) for file in request["images"]]}
            (output,) = model.generate(prompt, params)
        answers.append(
            {
                "prompt_token_ids": list(output.prompt_token_ids),
                "images": request.get("images", []),
                "token_ids": list(output.outputs[0].token_ids),
            }
        )
    options.tokens.write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
