"""What the shipped weights see in pictures that no part of mezzo drew. How well they do is in docs/nano.md."""

from __future__ import annotations

import base64
import io
import statistics
from difflib import SequenceMatcher

from mistralai.client import Mistral
from PIL import Image, ImageDraw, ImageFont

from tests.sdk.serving import MODEL

WORDS = ("Open", "Coffee", "Hotel", "Station", "Garden", "Market", "Summer", "Window", "Bridge", "Silver")
COLOURS = {"red": "#e02020", "green": "#20a030", "blue": "#2040d0", "yellow": "#f5d820", "black": "#101010"}


def ask(client: Mistral, image: Image.Image, question: str) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    answer = client.chat.complete(
        model=MODEL,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": address},
                    {"type": "text", "text": question},
                ],
            }
        ],
        temperature=0,
        max_tokens=24,
    )
    content = answer.choices[0].message.content
    assert isinstance(content, str)
    return content.strip().removesuffix(".")


def word(text: str) -> Image.Image:
    image = Image.new("RGB", (256, 96), "white")
    ImageDraw.Draw(image).text((20, 28), text, font=ImageFont.load_default(32), fill="black")
    return image


def shape(kind: str, fill: str) -> Image.Image:
    image = Image.new("RGB", (192, 160), "white")
    draw = ImageDraw.Draw(image)
    box = (56, 40, 136, 120)
    draw.ellipse(box, fill=fill) if kind == "circle" else draw.rectangle(box, fill=fill)
    return image


def test_words_are_read_or_nearly(mistral: Mistral) -> None:
    said = {text: ask(mistral, word(text), "What does it say?") for text in WORDS}
    alike = [SequenceMatcher(None, text, answer).ratio() for text, answer in said.items()]
    assert statistics.mean(alike) > 0.65, said


def test_colours_and_shapes_are_named(mistral: Mistral) -> None:
    shown = [(kind, name) for kind in ("circle", "square") for name in COLOURS]
    said = [
        (
            ask(mistral, shape(kind, COLOURS[name]), "What shape is this?"),
            ask(mistral, shape(kind, COLOURS[name]), "What colour is it?"),
        )
        for kind, name in shown
    ]
    assert sum(answer[0] == kind for answer, (kind, _) in zip(said, shown, strict=True)) >= 8, said
    assert sum(answer[1] == name for answer, (_, name) in zip(said, shown, strict=True)) >= 8, said
