"""How long a newcomer's first picture takes: one word on 448 x 448 pixels, asked through HTTP, one at a time.

    python -m benchmarks.image_answers http://127.0.0.1:8000 --key "$MEZZO_API_KEY"

Prints a JSON object: seconds until the whole answer (median, first and third quartile, worst), how long the answers
are, and how many are right. Each picture is new to the server. The typeface is the one inside Pillow, which training
never draws with.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import statistics

import httpx
from PIL import Image, ImageDraw, ImageFont

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
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    seconds, tokens, right = [], [], 0
    headers = {"authorization": f"Bearer {arguments.key}"}
    with httpx.Client(base_url=arguments.url, headers=headers, timeout=60, trust_env=False) as client:
        for word in WORDS:
            content = [
                {"type": "image_url", "image_url": drawn(word, rng)},
                {"type": "text", "text": "What does it say?"},
            ]
            body = {
                "model": arguments.model,
                "messages": [{"role": "user", "content": content}],
                "temperature": 0,
                "max_tokens": 32,
            }
            response = client.post("/v1/chat/completions", json=body)
            response.raise_for_status()
            answer = response.json()
            seconds.append(response.elapsed.total_seconds())
            tokens.append(answer["usage"]["completion_tokens"])
            right += answer["choices"][0]["message"]["content"].strip() == word
    first, median, third = statistics.quantiles(seconds, n=4)
    figures = {
        "pictures": len(WORDS),
        "seconds": {"median": median, "quartiles": [first, third], "worst": max(seconds)},
        "completion_tokens": statistics.mean(tokens),
        "right": right,
    }
    print(json.dumps(figures, indent=1))


def drawn(word: str, rng: random.Random) -> str:
    """Return a picture of a word, dark on light somewhere in the square, as a data: URI."""
    paper, ink = rng.randint(225, 255), rng.randint(0, 60)
    image = Image.new("RGB", (EDGE, EDGE), (paper, paper, paper))
    font = ImageFont.load_default(rng.randint(28, 56))
    draw = ImageDraw.Draw(image)
    place = rng.uniform(8, EDGE - 8 - draw.textlength(word, font)), rng.uniform(8, EDGE - 80)
    draw.text(place, word, font=font, fill=(ink, ink, ink))
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    main()
