"""What the shipped weights see in pictures that no part of mezzo drew. How well they do is in docs/nano.md."""

from __future__ import annotations

import statistics
from difflib import SequenceMatcher
from typing import Any

import torch
from mistralai.client import Mistral
from PIL import Image, ImageDraw, ImageFont
from transformers import AutoModelForImageTextToText, AutoTokenizer

from mezzo.weights import CheckpointFolder
from tests.sdk.pictures import data_uri, encoded, image
from tests.sdk.serving import MODEL
from tests.weights.reference import their_inputs

WORDS = ("Open", "Coffee", "Hotel", "Station", "Garden", "Market", "Summer", "Window", "Bridge", "Silver")
COLOURS = {"red": "#e02020", "green": "#20a030", "blue": "#2040d0", "yellow": "#f5d820", "black": "#101010"}


def ask(client: Mistral, shown: Image.Image, question: str) -> str:
    chunks: list[dict[str, Any]] = [image(data_uri(encoded(shown))), {"type": "text", "text": question}]
    answer = client.chat.complete(
        model=MODEL, messages=[{"role": "user", "content": chunks}], temperature=0, max_tokens=24
    )
    content = answer.choices[0].message.content
    assert isinstance(content, str)
    return content.strip().removesuffix(".")


def word(text: str) -> Image.Image:
    page = Image.new("RGB", (256, 96), "white")
    ImageDraw.Draw(page).text((20, 28), text, font=ImageFont.load_default(32), fill="black")
    return page


def shape(kind: str, fill: str) -> Image.Image:
    page = Image.new("RGB", (192, 160), "white")
    draw = ImageDraw.Draw(page)
    box = (56, 40, 136, 120)
    draw.ellipse(box, fill=fill) if kind == "circle" else draw.rectangle(box, fill=fill)
    return page


def test_transformers_says_the_same(mistral: Mistral, nano_folder: CheckpointFolder) -> None:
    """The folder that mezzo serves, read by the reference's network, tokenizer, template and image processor."""
    tokenizer = AutoTokenizer.from_pretrained(nano_folder.path)
    network = AutoModelForImageTextToText.from_pretrained(nano_folder.path).eval()
    for shown, question in (
        (word("Open"), "What does it say?"),
        (word("Station"), "Read the text."),
        (shape("circle", COLOURS["blue"]), "What shape is this?"),
        (shape("square", COLOURS["red"]), "What colour is it?"),
    ):
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        inputs = their_inputs(nano_folder.path, chat, shown)
        with torch.no_grad():
            output = network.generate(**inputs, max_new_tokens=24, do_sample=False)
        said = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert ask(mistral, shown, question) == said.strip().removesuffix(".")


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
