"""What it costs to hold answers to a grammar: tokens per second of 8 streams, with and without, in turns.

    python -m benchmarks.masks CHECKPOINT [--streams 8] [--tokens 64] [--rounds 5]

CHECKPOINT is a converted checkpoint (`mezzo models` names nano's). All answers are sampled at temperature 1 and have
the same number of tokens, so that the steps are the same but for the masks: of a JSON Schema with names, numbers,
choices and free text, in a list too long to end. Prints medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import msgspec

from benchmarks.engine import load, run_as_the_engine_does
from benchmarks.machine import this_machine
from mezzo.engine.config import Vocabulary
from mezzo.engine.core import EngineCore
from mezzo.engine.messages import AddRequest
from mezzo.engine.sampling_params import SamplingParams
from mezzo.prompt.json_schema import json_rule

_NEVER = 15
SCHEMA = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "kind": {"enum": ["small", "large", "unknown"]},
            "count": {"type": "integer", "minimum": 0, "maximum": 500},
            "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z-]{2,12}$"}},
            "note": {"type": ["string", "null"], "maxLength": 200},
        },
        "required": ["name", "kind", "count", "tags", "note"],
        "additionalProperties": False,
    },
}


def tokens_per_s(
    core: EngineCore, prompt: list[int], streams: int, tokens: int, grammar: str | None
) -> float:
    """Run the streams to their end; time runs from the first step in which all of them decode."""
    for index in range(streams):
        core.add(
            AddRequest(
                request_id=str(index),
                prompt_token_ids=prompt,
                params=SamplingParams(temperature=1.0, seed=index, max_tokens=tokens),
                grammar=grammar,
            )
        )
    while len(core.scheduler.running) < streams or core.is_compiling:
        core.step()
    before, start = core.stats.num_completion_tokens, time.perf_counter()
    num_steps = core.stats.num_steps
    while core.has_work:
        core.step()
    elapsed = time.perf_counter() - start
    assert core.stats.num_steps - num_steps >= tokens - 2, "an answer has ended early"
    return (core.stats.num_completion_tokens - before) / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="file for the record")
    arguments = parser.parse_args()
    run_as_the_engine_does()

    encoder, config, runner = load(arguments.checkpoint, kv_cache_tokens=16384, max_draft_tokens=0)
    # A token that no text has ends answers here, so that all have the same length.
    vocabulary = Vocabulary(token_bytes=encoder.token_bytes(), eos_token_ids=frozenset({_NEVER}))
    core = EngineCore(config, vocabulary, runner)
    prompt = encoder.encode_answer("Describe the things in the shop. " * 4)
    kinds = {"free": None, "held": f"start: {json_rule(SCHEMA)}"}
    speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(arguments.rounds + 1):  # the first warms up, and compiles
        for kind, grammar in kinds.items():
            speeds[kind].append(tokens_per_s(core, prompt, arguments.streams, arguments.tokens, grammar))
    medians = {kind: statistics.median(each[1:]) for kind, each in speeds.items()}
    record = {
        "machine": msgspec.to_builtins(this_machine()),
        "streams": arguments.streams,
        "tokens": arguments.tokens,
        "tokens_per_s": {kind: round(median, 1) for kind, median in medians.items()},
        "ratio": round(medians["held"] / medians["free"], 3),
        "rounds": {kind: [round(speed, 1) for speed in each[1:]] for kind, each in speeds.items()},
    }
    print(json.dumps(record, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
