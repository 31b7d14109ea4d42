"""What learning to see cost nano's language: perplexity of plain English with and without the decoder's update.

    python -m benchmarks.nano_text NANO NANO_TEXT [--out docs/nano/facts.json]

NANO and NANO_TEXT are the folders that `mezzo pull nano` and `mezzo pull nano-text` print. The text is this
repository's documentation, which neither was trained on, in pieces of 256 tokens. The file has the sizes of the vision
half too.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from mezzo.kit.files import replace_json
from mezzo.model.checkpoint import load_network
from mezzo.model.config import ModelConfig
from mezzo.model.network import Network
from mezzo.train.decoder_pass import hidden_states

DOCS = Path(__file__).parents[1] / "docs"
LENGTH = 256
CPU = torch.device("cpu")


def prose() -> str:
    """Return the sentences of the documentation: no tables, no code, no lists of links."""
    texts = []
    for path in sorted(DOCS.rglob("*.md")):
        text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        texts += [
            line for line in text.splitlines() if len(line) > 60 and not line.startswith(("|", "- [", "#"))
        ]
    return "\n".join(texts)


@torch.inference_mode()
def mean_loss(network: Network, token_ids: list[int]) -> float:
    """Return the mean negative log-likelihood in nats of a token given up to 255 before it in its piece."""
    decoder = network.decoder
    losses, count = 0.0, 0
    for start in range(0, len(token_ids) - LENGTH, LENGTH):
        piece = torch.tensor(token_ids[start : start + LENGTH])
        hidden = hidden_states(decoder, decoder.tok_embeddings(piece)[None])[0]
        losses += F.cross_entropy(decoder.output(hidden[:-1]), piece[1:], reduction="sum").item()
        count += LENGTH - 1
    return losses / count


def load(folder: Path) -> Network:
    return load_network(folder, ModelConfig.from_folder(folder), dtype=torch.float32, device=CPU)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nano", type=Path)
    parser.add_argument("nano_text", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    token_ids = Tokenizer.from_file(str(arguments.nano_text / "tokenizer.json")).encode(prose()).ids
    seeing, reading = load(arguments.nano), load(arguments.nano_text)
    after, before = (math.exp(mean_loss(network, token_ids)) for network in (seeing, reading))
    assert seeing.vision is not None
    facts = {
        "vision": f"{sum(p.numel() for p in seeing.vision.parameters()) / 1e6:.1f}",
        "image_size": seeing.vision.config.image_size,
        "text_tokens": len(token_ids) // LENGTH * (LENGTH - 1),
        "before": before,
        "after": after,
        "change": after / before - 1,
    }
    print(json.dumps(facts, indent=2))
    if arguments.out is not None:
        replace_json(arguments.out, facts)


if __name__ == "__main__":
    main()
