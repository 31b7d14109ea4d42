"""How long a newcomer's first picture takes: one word on 448 x 448 pixels, asked through HTTP, one at a time.

    python -m benchmarks.image_answers http://127.0.0.1:8000 --key "$MEZZO_API_KEY" [--out docs/nano/image_answers.json]

Prints a JSON object: seconds until the whole answer (median, first and third quartile, worst), and how many are right.
Each picture is new to the server. The typeface is the one inside Pillow, which training never draws with.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mezzo.kit.files import replace_json
from mezzo.train.data.picture import Turn
from mezzo.train.evaluate import Question, connect, examine

WORDS = (
    "Open", "Closed", "Coffee", "Hotel", "Station", "Garden", "Market", "Bakery", "Museum", "Exit", "Parking",
    "Library", "Pharmacy", "Summer", "Window", "Bridge", "Orange", "Planet", "Silver", "Travel",
)  # fmt: skip
EDGE = 448


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--key", required=True)
    parser.add_argument("--model", default="mistral-medium-latest")
    parser.add_argument("--seed", type=int, default=448)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    asked = [Question("word", drawn(word, rng), Turn("What does it say?", word)) for word in WORDS]
    with connect(arguments.url, arguments.key, trust_env=False) as client:
        graded = examine(asked, client, model=arguments.model, at_once=1, advance=lambda one: None)
    seconds = [one.seconds for one in graded]
    first, median, third = statistics.quantiles(seconds, n=4)
    figures = {
        "pictures": len(graded),
        "seconds": {"median": median, "quartiles": [first, third], "worst": max(seconds)},
        "right": sum(one.is_right for one in graded),
    }
    print(json.dumps(figures, indent=2))
    if arguments.out is not None:
        replace_json(arguments.out, figures)


def drawn(word: str, rng: random.Random) -> np.ndarray:
    """Draw a word, dark on light somewhere in the square: uint8 (EDGE, EDGE, 3)."""
    paper, ink = rng.randint(225, 255), rng.randint(0, 60)
    image = Image.new("RGB", (EDGE, EDGE), (paper, paper, paper))
    font = ImageFont.load_default(rng.randint(28, 56))
    draw = ImageDraw.Draw(image)
    place = rng.uniform(8, EDGE - 8 - draw.textlength(word, font)), rng.uniform(8, EDGE - 80)
    draw.text(place, word, font=font, fill=(ink, ink, ink))
    return np.asarray(image)


if __name__ == "__main__":
    main()
