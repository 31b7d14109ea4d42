"""What drafts are worth: tokens per second of one stream, with a prediction, with look-ups alone, and without either.

    python -m benchmarks.predictions CHECKPOINT [--max-tokens 400] [--rounds 5] [--changes 0 4 12]

CHECKPOINT is a converted checkpoint (`mezzo models` names nano's). The engine answers greedily, in this process and in
turns. The prediction is the answer with some words changed, as an edited text is to its original; `story` is a text of
the model's own, `copy` an answer that repeats its prompt. Prints medians over the rounds; answers must be equal.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

import msgspec
from rich.progress import track

from benchmarks.engine import load, run_as_the_engine_does
from benchmarks.machine import this_machine
from mezzo.engine.config import Vocabulary
from mezzo.engine.core import EngineCore
from mezzo.engine.messages import AddRequest
from mezzo.engine.sampling_params import SamplingParams
from mezzo.prompt.template_encoder import TemplateEncoder
from mezzo.protocol.chat import ChatCompletionRequest
from mezzo.protocol.messages import AssistantMessage, Message, UserMessage

STORY = "Write a long story about a fox."
LETTER = (
    "Dear Ms Rivers, thank you for your letter of 3 March about the garden behind the old mill. The council has read "
    "it with care. The wall will be repaired before the summer, and the gate will be painted green, as you asked. Two "
    "of the apple trees are ill and must go; three young ones will be planted in their place. The path along the water "
    "stays open to everybody, also in winter. If you find that anything else should be done, write to us again, or "
    "come to our office on a Tuesday. Yours sincerely, Tom Baker, Gardens and Parks."
)


class Run(msgspec.Struct, frozen=True):
    token_ids: list[int]
    tokens_per_s: float
    num_steps: int


class Engine:
    """One runner, and a fresh core for each answer."""

    def __init__(self, folder: Path) -> None:
        self.encoder, self._config, self._runner = load(folder, kv_cache_tokens=8192)
        self._vocabulary = Vocabulary(
            token_bytes=self.encoder.token_bytes(), eos_token_ids=self.encoder.eos_token_ids
        )

    def answer(self, prompt: list[int], max_tokens: int, prediction: list[int], num_drafts: int) -> Run:
        """Answer once; time runs from the first token on."""
        config = msgspec.structs.replace(self._config, max_draft_tokens=num_drafts)
        core = EngineCore(config, self._vocabulary, self._runner)
        core.add(
            AddRequest(
                request_id="r",
                prompt_token_ids=prompt,
                params=SamplingParams(max_tokens=max_tokens),
                prediction_token_ids=prediction,
            )
        )
        text = ""
        start = None
        while core.has_work:
            text += "".join(output.text for output in core.step())
            if start is None and text:
                start, first_steps = time.perf_counter(), core.stats.num_steps
        assert start is not None
        elapsed = time.perf_counter() - start
        stats = core.stats
        return Run(
            self.encoder.encode_answer(text),
            (stats.num_completion_tokens - 1) / elapsed,
            stats.num_steps - first_steps,
        )


def changed(encoder: TemplateEncoder, token_ids: list[int], num_changes: int) -> list[int]:
    """Return the text with so many of its words replaced, left out or doubled."""
    rng = random.Random(1)
    words = b"".join(encoder.token_bytes()[token_id] for token_id in token_ids).decode().split(" ")
    for _ in range(num_changes):
        place = rng.randrange(len(words))
        words[place : place + 1] = rng.choice([["other"], [], [words[place], words[place]]])
    return encoder.encode_answer(" ".join(words))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--changes", type=int, nargs="+", default=[0, 4, 12])
    parser.add_argument("--out", type=Path, help="file for the record")
    arguments = parser.parse_args()
    run_as_the_engine_does()

    engine = Engine(arguments.checkpoint)
    begun = AssistantMessage(role="assistant", content=LETTER[:40], prefix=True)
    asked = UserMessage(role="user", content=f"Repeat this letter word by word.\n\n{LETTER}")
    prompts = {
        "story": engine.encoder.encode(_request(UserMessage(role="user", content=STORY))).token_ids,
        "copy": engine.encoder.encode(_request(asked, begun)).token_ids,
    }
    speeds: dict[str, list[float]] = {}
    steps: dict[str, int] = {}
    for name, prompt in prompts.items():
        plain = engine.answer(prompt, arguments.max_tokens, [], 0)
        variants: dict[str, tuple[list[int], int]] = {
            f"{name}, plain": ([], 0),
            f"{name}, look-ups": ([], 32),
        }
        if name == "story":
            for num_changes in arguments.changes:
                prediction = changed(engine.encoder, plain.token_ids, num_changes)
                variants[f"{name}, predicted with {num_changes} changes"] = prediction, 32
        for _ in track(range(arguments.rounds), name):
            for variant, (prediction, num_drafts) in variants.items():
                run = engine.answer(prompt, arguments.max_tokens, prediction, num_drafts)
                assert run.token_ids == plain.token_ids, f"{variant}: another answer"
                speeds.setdefault(variant, []).append(run.tokens_per_s)
                steps[variant] = run.num_steps
    medians = {variant: statistics.median(each) for variant, each in speeds.items()}
    rows = {
        variant: {
            "tokens_per_s": round(median, 1),
            "ratio": round(median / medians[f"{variant.split(',')[0]}, plain"], 2),
            "steps": steps[variant],
            "rounds": [round(each, 1) for each in speeds[variant]],
        }
        for variant, median in medians.items()
    }
    record = {
        "machine": msgspec.to_builtins(this_machine()),
        "max_tokens": arguments.max_tokens,
        "runs": rows,
    }
    text = msgspec.json.format(msgspec.json.encode(record)) + b"\n"
    print(text.decode())
    if arguments.out is not None:
        arguments.out.write_bytes(text)


def _request(*messages: Message) -> ChatCompletionRequest:
    return ChatCompletionRequest(model="nano", messages=list(messages))


if __name__ == "__main__":
    main()
