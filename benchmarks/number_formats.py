"""How much of the model is lost in bfloat16, and what float32 residuals and logits give back.

    python -m benchmarks.number_formats FOLDER

FOLDER is a converted checkpoint (`mezzo models` names nano's). Prompts are answered greedily in float32; then each
variant reads the same texts, and its next-token distributions are held against those of float32: share of equal
best tokens, mean KL divergence in nats, largest difference of a logit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzo.model.attention import SequenceSpan, plan_attention
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.decoder import Decoder
from mezzo.model.kv_cache import KVCache
from mezzo.prompt.parts import NO_ATTACHMENTS
from mezzo.prompt.template_encoder import TemplateEncoder
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.messages import UserMessage

QUESTIONS = [
    "What is the capital of France?", "Explain gravity.", "Write a poem about the sea.", "List three fruits.",
    "How do I boil an egg?", "What is 2+2?", "Translate hello to French.", "Who wrote Hamlet?", "Describe a cat.",
    "Why is the sky blue?",
]  # fmt: skip
CPU = torch.device("cpu")
MAX_TOKENS = 64


class Reader:
    """A decoder with a cache for one text at a time."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.num_context = 0
        self.cache = KVCache(decoder.config, num_blocks=16, block_size=64, dtype=decoder.dtype, device=CPU)

    @torch.inference_mode()
    def read(self, token_ids: list[int], *, rest: bool = False) -> Tensor:
        """Return logits of every token; with `rest`, the tokens continue the last text."""
        start = self.num_context if rest else 0
        span = SequenceSpan(list(range(16)), start, len(token_ids))
        plan = plan_attention([span], self.cache, self.decoder.config, self.decoder.dtype, CPU)
        self.num_context = start + len(token_ids)
        positions = torch.arange(start, self.num_context)
        logits: Tensor = self.decoder(
            torch.tensor(token_ids), positions, plan, self.cache, torch.arange(len(token_ids))
        )
        return logits


def answer(reader: Reader, prompt: list[int], eos_token_ids: frozenset[int]) -> list[int]:
    """Return prompt and greedy answer."""
    text = list(prompt)
    logits = reader.read(prompt)
    for _ in range(MAX_TOKENS):
        text.append(int(logits[-1].argmax()))
        if text[-1] in eos_token_ids:
            break
        logits = reader.read(text[-1:], rest=True)
    return text


def round_logits(decoder: Decoder) -> None:
    """Make the head's output what a bfloat16 product would be."""
    decoder.output.register_forward_hook(lambda module, inputs, output: output.bfloat16().float())


def round_residual(decoder: Decoder) -> None:
    """Keep the residual stream between layers in bfloat16."""
    for layer in decoder.layers:
        layer.register_forward_hook(lambda module, inputs, output: output.bfloat16().float())


VARIANTS: dict[str, list[Callable[[Decoder], None]]] = {
    "bfloat16 throughout": [round_logits, round_residual],
    "bfloat16, float32 residual": [round_logits],
    "bfloat16, float32 logits": [round_residual],
    "bfloat16, float32 residual and logits (as built)": [],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    config = ModelConfig.from_folder(folder)
    encoder = TemplateEncoder.from_folder(folder)
    exact = Reader(load_network(folder, config, dtype=torch.float32, device=CPU).decoder)
    texts, references = [], []
    for question in QUESTIONS:
        request = ChatCompletionRequest(model="m", messages=[UserMessage(role="user", content=question)])
        prompt = encoder.encode(request, NO_ATTACHMENTS).token_ids
        text = answer(exact, prompt, encoder.eos_token_ids)
        texts.append(text)
        references.append(exact.read(text)[len(prompt) - 1 :])
    num_positions = sum(len(reference) for reference in references)
    print(f"{num_positions} positions of {len(texts)} answers\n")
    print("| variant | best token equal | mean KL | largest difference |\n| --- | ---: | ---: | ---: |")
    for name, changes in VARIANTS.items():
        decoder = load_network(folder, config, dtype=torch.bfloat16, device=CPU).decoder
        for change in changes:
            change(decoder)
        reader = Reader(decoder)
        equal, divergence, difference = 0, 0.0, 0.0
        for text, reference in zip(texts, references, strict=True):
            ours = reader.read(text)[-len(reference) :]
            equal += int((ours.argmax(-1) == reference.argmax(-1)).sum())
            divergence += F.kl_div(
                ours.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="sum"
            ).item()
            difference = max(difference, (ours - reference).abs().max().item())
        print(
            f"| {name} | {equal / num_positions:.1%} | {divergence / num_positions:.5f} | {difference:.2f} |"
        )


if __name__ == "__main__":
    main()
