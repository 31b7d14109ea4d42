"""The real nano weights in float32: 64 greedy tokens of ten prompts, through the engine, as transformers has them.

Ours are computed in chunks, in one ragged batch, over a paged cache; theirs one prompt at a time. Identical means
identical: no tolerance. Their own generation loop takes a second per prompt and core, so it runs for one prompt; the
others are read again in one pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mezzo.engine.config import Vocabulary
from mezzo.engine.sequence import Sequence
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.prompt.template import ChatTemplate
from mezzo.prompt.tokenizer import TextTokenizer
from mezzo.weights import CheckpointFolder
from tests.tiny import CPU, make_core, make_request

pytestmark = pytest.mark.slow

NUM_TOKENS = 64
QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Explain recursion to a child.",
    "def fibonacci(n):",
    "¿Dónde está la biblioteca?",
    "List three uses of a brick.",
    "Summarise: " + "The quick brown fox jumps over the lazy dog. " * 20,
]
TEXTS = ["Once upon a time", "The three laws of thermodynamics are", "1, 1, 2, 3, 5, 8, 13,"]


def test_greedy_continuations_are_those_of_transformers(nano_folder: CheckpointFolder) -> None:
    from transformers import AutoModelForImageTextToText

    folder = Path(nano_folder.path)
    tokenizer = TextTokenizer.from_folder(folder)
    template = ChatTemplate.from_folder(folder, tokenizer)
    prompts = [template.encode([{"role": "user", "content": q}], continues_last=False) for q in QUESTIONS]
    prompts += [tokenizer.encode(text) for text in TEXTS]
    assert len(prompts) == 10

    decoder = load_network(folder, ModelConfig.from_folder(folder), dtype=torch.float32, device=CPU).decoder
    # No end tokens: all 64 are compared, whatever the model says.
    vocabulary = Vocabulary(token_bytes=(), eos_token_ids=frozenset())
    core = make_core(decoder, num_blocks=200, max_num_seqs=10, max_step_tokens=64, vocabulary=vocabulary)
    for i, prompt in enumerate(prompts):
        core.add(make_request(str(i), prompt, max_tokens=NUM_TOKENS))
    sequences: list[Sequence] = list(core.scheduler.waiting)
    while core.has_work:
        core.step()
    ours = [s.tokens_between(s.num_prompt, s.num_tokens) for s in sequences]

    reference = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    for prompt, continuation in zip(prompts, ours, strict=True):
        assert continuation == reread(reference, prompt, continuation)
    assert ours[0] == generated(reference, prompts[0])


def reread(reference: Any, prompt: list[int], continuation: list[int]) -> list[int]:
    """Return the best token after the prompt and after each token but the last of the continuation, in one pass.

    If that is the continuation itself, then it is what greedy decoding gives: by induction, token by token.
    """
    with torch.inference_mode():
        logits = reference(torch.tensor([prompt + continuation])).logits[0]
    best: list[int] = logits[len(prompt) - 1 : -1].argmax(-1).tolist()
    return best


def generated(reference: Any, prompt: list[int]) -> list[int]:
    """Return what its own loop generates, token by token with its cache."""
    with torch.inference_mode():
        token_ids = reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            min_new_tokens=NUM_TOKENS,
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, len(prompt) :]
    continuation: list[int] = token_ids.tolist()
    return continuation
