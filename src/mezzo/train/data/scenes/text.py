"""Text on paper: pages full of it for the encoder, and single words, numbers and lines to be read aloud."""

from __future__ import annotations

import random
import string

from PIL import ImageDraw, ImageFont

from mezzo.train.data import colours
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas

_LETTERS = string.ascii_letters + string.digits * 3 + string.ascii_lowercase + string.punctuation
_MADE_UP = 0.5  # of the words in training
READ_QUESTIONS = {
    "train": (
        "What does it say?", "Read the text.", "What is written here?", "What text is in the picture?",
        "Transcribe the text.", "Read this.", "What does the image say?", "Please read the text in this image.",
    ),
    "held_out": (
        "Which text can be seen?", "What do you read in this picture?", "Tell me what is written.",
        "What word or number does the image show?",
    ),
}  # fmt: skip


def page(material: Material, width: int, height: int) -> Canvas:
    """Fill a picture with lines in different letters, colours and sizes."""
    rng = material.rng
    ink, paper = colours.ink_and_paper(rng)
    canvas = Canvas(width, height, paper)
    _background(canvas, rng)
    size = _size(rng, height)
    font = material.font(size)
    y = rng.uniform(0, size / 3)
    lines: list[str] = []
    while True:
        if rng.random() < 0.3:  # another voice
            size = _size(rng, height)
            font = material.font(size)
        ascent, descent = font.getmetrics()
        if y + ascent + descent * 0.6 > height:
            if lines or size < 8:
                break
            size = round(size * 0.8)  # too large for even one line
            font = material.font(size)
            continue
        x = rng.uniform(1, width * 0.25) if rng.random() < 0.5 else rng.uniform(1, 6)
        line = _line_that_fits(material, font, width - x - 2)
        if line:
            canvas.text(x, y, line, font, ink)
            lines.append(line)
        y += (ascent + descent) * rng.uniform(0.85, 1.3)
    if rng.random() < 0.15:
        canvas.rotate(rng.uniform(-6, 6))
    if lines:
        canvas.ask(rng.choice(READ_QUESTIONS[material.split]), "\n".join(lines), "page")
    return canvas


def letters(material: Material, width: int, height: int) -> Canvas:
    """Write single letters, a patch apart: at first in the middle of their patches and alike, then less and less so.

    A network that sees patches has nothing that makes a letter the same letter two pixels further on. Learning it from
    pages takes long; letters that start to move slowly are read from the beginning on.
    """
    rng, progress = material.rng, material.progress
    if rng.random() < progress - 0.3:
        ink, paper = colours.ink_and_paper(rng)
    else:
        level = round(rng.uniform(0, 90 * progress))
        ink, paper = (level, level, level), (255, 255, 255)
    canvas = Canvas(width, height, paper)
    size = round(rng.uniform(17 - 3 * progress, 17 + 11 * progress))
    font = material.font(size) if rng.random() < progress - 0.4 else material.everyday_font(size)
    pitch = max(16, round(size * 0.9))
    shift = 8 * progress
    row_step = 32 if size > 18 or rng.random() < 0.5 else 16
    left, top = (8.0, 8.0 if rng.random() < 0.5 else 24.0)
    left, top = left + rng.uniform(-shift, shift), top + rng.uniform(-shift, shift)
    y = top
    while y < height:
        x = left
        while x < width:
            if rng.random() < 0.9:
                char = rng.choice(_LETTERS)
                across, down = (rng.uniform(-1, 1) * progress for _ in range(2))
                start = x + across - font.getlength(char) / 2
                canvas.text(start, y + down - font.getmetrics()[0] + 0.33 * size, char, font, ink)
            x += pitch * rng.uniform(1, 1 + 0.3 * progress)
        y += max(row_step, size)
    return canvas


def plain_page(material: Material, width: int, height: int) -> Canvas:
    """Fill a picture as most pages are: dark on white, an everyday typeface, one size; letters wide apart at first."""
    rng = material.rng
    level = rng.randint(0, 60)
    canvas = Canvas(width, height, (255, 255, 255))
    font = material.everyday_font(rng.randint(16, 28))
    spacing = (1 - material.progress) * rng.uniform(0.3, 0.6) * font.size
    ascent, descent = font.getmetrics()
    y, lines = rng.uniform(-2, max(0, min(8, height - ascent))), []
    while y + ascent <= height:
        x = rng.uniform(0, width * 0.2)
        room = width - x - 2
        text = _line_that_fits(material, font, room)
        text = text[: max(1, int(len(text) * room / (room + spacing * len(text))))].strip()
        if text:
            canvas.spaced_text(x, y, text, font, (level, level, level), spacing)
            lines.append(text)
        y += (ascent + descent) * rng.uniform(0.95, 1.2)
    if lines:
        canvas.ask(rng.choice(READ_QUESTIONS[material.split]), "\n".join(lines), "page")
    return canvas


def line(material: Material, width: int, height: int) -> Canvas:
    """Write one line that fills much of the picture and ask for it: a word, a number or several."""
    rng = material.rng
    ink, paper = colours.ink_and_paper(rng)
    canvas = Canvas(width, height, paper)
    _background(canvas, rng)
    text = _content(material, width, height)
    size = min(72, height)
    while True:
        font = material.font(size)
        room_x, room_y = width - 4 - font.getlength(text), height - sum(font.getmetrics())
        if room_x > 0 and room_y > -0.1 * size:
            smaller = round(size * rng.uniform(0.6, 1.0))
            if smaller >= 14:
                font = ImageFont.truetype(font.path, smaller)
                room_x, room_y = width - 4 - font.getlength(text), height - sum(font.getmetrics())
            break
        size = round(size * 0.85)
        if size < 12:
            size, text = min(72, height), text[: max(1, len(text) * 2 // 3)].strip() or "a"
    canvas.text(2 + rng.uniform(0, room_x), rng.uniform(0, max(0.0, room_y)), text, font, ink)
    if rng.random() < 0.2:
        canvas.rotate(rng.uniform(-4, 4))
    skill = "line" if " " in text else "number" if any(map(str.isdigit, text)) else "word"
    canvas.ask(rng.choice(READ_QUESTIONS[material.split]), text, skill)
    return canvas


def _content(material: Material, width: int, height: int) -> str:
    rng = material.rng
    longest = max(4, min(32, round(width / max(9, height / 5))))
    kind = rng.random()
    if kind < 0.45:
        # The examination asks for words; training has made-up ones as well.
        made_up = material.split == "train" and rng.random() < _MADE_UP
        return (material.spliced_word if made_up else material.word)(min(12, longest))
    if kind < 0.55:
        return material.letters(rng.randint(1, min(8, longest)))
    if kind < 0.72:
        return material.number()[:12]
    if kind < 0.78:
        return rng.choice((material.code, material.time, material.date))()
    text = material.token()
    while len(text) < longest * 0.7:
        text += " " + material.token()
    return text[:longest].strip()


def _line_that_fits(material: Material, font: ImageFont.FreeTypeFont, room: float) -> str:
    """Return words that fill a line; in a narrow picture as much of one as there is room for."""
    text = ""
    for _ in range(20):
        longer = f"{text} {material.token()}" if text else material.token()
        if font.getlength(longer) > room:
            while not text and longer and font.getlength(longer) > room:
                longer = longer[:-1]
            return text or longer
        text = longer
    return text


def _size(rng: random.Random, height: int) -> int:
    """Choose pixels per em: reading sizes mostly, large letters sometimes."""
    return round(min(height * 0.8, rng.uniform(13, 30) if rng.random() < 0.7 else rng.uniform(26, 64)))


def _background(canvas: Canvas, rng: random.Random) -> None:
    """Sometimes leave faint lines, boxes or a gradient on the paper."""
    kind = rng.random()
    if kind > 0.25:
        return
    red, green, blue = canvas.paper
    faint = tuple(max(0, min(255, c + rng.choice((-1, 1)) * rng.randint(4, 22))) for c in (red, green, blue))
    draw: ImageDraw.ImageDraw = canvas.draw
    if kind < 0.08:
        step = rng.randint(10, 40)
        for y in range(rng.randrange(step), canvas.height, step):
            draw.line((0, y, canvas.width, y), fill=faint)
    elif kind < 0.16:
        for _ in range(rng.randint(1, 4)):
            x, y = rng.randrange(canvas.width), rng.randrange(canvas.height)
            draw.rectangle((x, y, x + rng.randint(10, 120), y + rng.randint(10, 80)), fill=faint)
    else:
        for y in range(canvas.height):
            share = y / canvas.height
            mixed = tuple(
                round(a * (1 - share) + b * share) for a, b in zip(canvas.paper, faint, strict=True)
            )
            draw.line((0, y, canvas.width, y), fill=mixed)
