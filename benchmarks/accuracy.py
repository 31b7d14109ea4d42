"""What a number format costs in accuracy: perplexity of held-out text, and how often the best token is float32's.

    python -m benchmarks.accuracy FOLDER [--formats bfloat16 int8 int4] [--text FILE ...] [--save]

FOLDER is a converted checkpoint (`mezzo models` names nano's). Texts are the pages of docs/ unless others are named:
they are younger than the models. They are read in windows of 1,024 tokens; the first token of a window is not counted.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.records import save
from mezzo.engine.config import EngineConfig
from mezzo.engine.loader import load_runner
from mezzo.model.attention import SequenceSpan
from mezzo.prompt.template_encoder import TemplateEncoder

_REPOSITORY = Path(__file__).resolve().parent.parent
_WINDOW, _BLOCK = 1024, 64


@dataclass
class Accuracy:
    """perplexity  e to the mean negative log-probability of the next token
    top1        share of positions whose best token is float32's
    divergence  mean Kullback-Leibler divergence from float32's distribution, in nats
    """

    number_format: str
    weights_bytes: int
    perplexity: float
    perplexity_change: float = 0.0
    top1: float = 1.0
    divergence: float = 0.0


def read_windows(folder: Path, number_format: str, windows: list[list[int]]) -> tuple[list[Tensor], int]:
    """Return log-probabilities (tokens - 1, vocab_size) float16 of each window, and the bytes of the weights."""
    config = EngineConfig(folder=str(folder), device="cpu", dtype=number_format, kv_cache_tokens=_WINDOW)  # type: ignore[arg-type]
    runner = load_runner(config, lambda _loaded, _total: None)
    found = []
    with torch.inference_mode():
        for window in windows:
            span = SequenceSpan(list(range(_WINDOW // _BLOCK)), 0, len(window))
            positions = torch.arange(len(window))
            plan = runner.decoder.plan([span], runner.cache)
            logits = runner.decoder(torch.tensor(window), positions, plan, runner.cache, positions[:-1])
            found.append(logits.log_softmax(-1))
    return found, runner.network.num_bytes


def compare(
    number_format: str, found: list[Tensor], exact: list[Tensor], windows: list[list[int]], weights_bytes: int
) -> Accuracy:
    num_positions = sum(len(window) - 1 for window in windows)
    loss = equal = divergence = exact_loss = 0.0
    for ours, reference, window in zip(found, exact, windows, strict=True):
        following = torch.tensor(window[1:])
        loss += F.nll_loss(ours, following, reduction="sum").item()
        exact_loss += F.nll_loss(reference, following, reduction="sum").item()
        equal += int((ours.argmax(-1) == reference.argmax(-1)).sum())
        divergence += F.kl_div(ours, reference, log_target=True, reduction="sum").item()
    return Accuracy(
        number_format,
        weights_bytes,
        math.exp(loss / num_positions),
        math.exp((loss - exact_loss) / num_positions) - 1,
        equal / num_positions,
        divergence / num_positions,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--formats", nargs="+", default=["bfloat16", "int8", "int4"])
    parser.add_argument("--text", nargs="+", type=Path, default=sorted((_REPOSITORY / "docs").glob("*.md")))
    parser.add_argument("--windows", type=int, default=24, help="windows read at most")
    parser.add_argument("--save", action="store_true", help="write a file into benchmarks/results")
    args = parser.parse_args()
    encoder = TemplateEncoder.from_folder(args.folder)
    token_ids = encoder.tokenizer.encode("\n\n".join(path.read_text("utf-8") for path in args.text))
    windows = [token_ids[i : i + _WINDOW] for i in range(0, len(token_ids) - 1, _WINDOW)][: args.windows]
    exact, weights_bytes = read_windows(args.folder, "float32", windows)
    rows = [compare("float32", exact, exact, windows, weights_bytes)]
    for number_format in args.formats:
        found, weights_bytes = read_windows(args.folder, number_format, windows)
        rows.append(compare(number_format, found, exact, windows, weights_bytes))
    num_tokens = sum(len(window) for window in windows)
    print(f"{num_tokens} tokens of {len(args.text)} texts in {len(windows)} windows\n")
    print("| format | weights (MB) | perplexity | change | best token equal | mean KL |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row.number_format} | {row.weights_bytes / 1e6:.0f} | {row.perplexity:.3f} "
            f"| {row.perplexity_change:+.2%} | {row.top1:.2%} | {row.divergence:.5f} |"
        )
    if args.save:
        path = save("accuracy", checkpoint=args.folder.name, num_tokens=num_tokens, formats=rows)
        print(f"\nwritten to {path.relative_to(_REPOSITORY)}")


if __name__ == "__main__":
    main()
