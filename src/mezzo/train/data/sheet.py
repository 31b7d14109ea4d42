"""A contact sheet: pictures in a grid with their questions and answers beneath, to be looked at by people."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from mezzo.train.data.picture import Picture

_GAP, _LINE = 12, 16
_PAPER, _QUESTION, _ANSWER = (255, 255, 255), (70, 70, 70), (0, 90, 170)


def sheet(pictures: Sequence[Picture], columns: int = 4) -> Image.Image:
    """Lay pictures out in rows of `columns`; each row is as high as its tallest."""
    font = ImageFont.load_default(13)
    cell = max((picture.pixels.shape[1] for picture in pictures), default=1)
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    captions = [[_caption(picture, font, cell) for picture in row] for row in rows]
    heights = [
        max(p.pixels.shape[0] + _LINE * len(c) for p, c in zip(row, texts, strict=True)) + 2 * _GAP
        for row, texts in zip(rows, captions, strict=True)
    ]
    across = min(columns, len(pictures)) * (cell + _GAP) + _GAP
    image = Image.new("RGB", (across, sum(heights) + _GAP), _PAPER)
    draw = ImageDraw.Draw(image)
    top = _GAP
    for row, texts, height in zip(rows, captions, heights, strict=True):
        for column, (picture, lines) in enumerate(zip(row, texts, strict=True)):
            left = _GAP + column * (cell + _GAP)
            image.paste(Image.fromarray(picture.pixels), (left, top))
            below, right = top + picture.pixels.shape[0], left + picture.pixels.shape[1]
            draw.rectangle((left - 1, top - 1, right, below), outline=(200, 200, 200))
            for number, (line, colour) in enumerate(lines):
                draw.text((left, below + 3 + number * _LINE), line, font=font, fill=colour)
        top += height
    return image


def _caption(
    picture: Picture, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int
) -> list[tuple[str, tuple[int, int, int]]]:
    return [
        (line, colour)
        for turn in picture.turns
        for text, colour in ((turn.question, _QUESTION), (turn.answer, _ANSWER))
        for line in _wrapped(text, font, room)
    ]


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > room and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
