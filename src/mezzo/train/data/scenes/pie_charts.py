"""Pies, cut into slices that differ."""

from __future__ import annotations

import math

from mezzo.train.data import colours
from mezzo.train.data.colours import RGB
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas
from mezzo.train.data.scenes import chart_parts
from mezzo.train.data.scenes.common import Box, Pen, Questions, Wording, ink_on, rectangle

MOST = Wording(
    ("Which slice is the largest?", "Which is the biggest slice?", "Which label has the largest slice?"),
    ("Name the label with the greatest share.",),
    "chart_extreme",
)
LEAST = Wording(
    ("Which slice is the smallest?", "Which is the smallest slice?", "Which label has the smallest slice?"),
    ("Name the label with the least share.",),
    "chart_extreme",
)
SHARE = Wording(
    ("What percentage is {label}?", "What is the share of {label}?", "How many percent is {label}?"),
    ("Which share does {label} take?",),
    "chart_value",
)
LABEL = Wording(
    ("Which slice is {share}?", "What has {share}?"), ("Name the label with {share}.",), "chart_value"
)
GREATER = Wording(
    ("Which slice is larger, {first} or {second}?", "Which is larger, {first} or {second}?"),
    ("Of {first} and {second}, name the greater slice.",),
    "chart_compare",
)
COUNT = Wording(
    ("How many slices are there?", "Count the slices."),
    ("Into how many parts is the circle cut?",),
    "chart_count",
)
COLOUR = Wording(
    ("What colour is {label}?", "What color is the slice of {label}?"),
    ("Name the colour of {label}.",),
    "chart_colour",
)
OF_COLOUR = Wording(
    ("What does the {colour} slice stand for?", "Which label has the {colour} slice?"),
    ("Name the label of the {colour} slice.",),
    "chart_colour",
)


def pie_chart(material: Material, width: int, height: int) -> Canvas:
    """Draw a pie with a legend, or with labels around it, and ask about its slices."""
    rng = material.rng
    chart = chart_parts.start(material, width, height)
    canvas, paper, letters, questions = chart.canvas, chart.paper, chart.letters, chart.questions
    margin, top = chart.margin, chart.top
    box = (margin, top, width - margin, height - margin)
    names = chart_parts.labels(material, rng.randint(2, 6), ordered=False)
    # Most of the width stays for the pie, and most of the height where the legend is beneath it.
    names = [name for name in names if letters.width(name) < 0.4 * width]
    names = names[: max(2, int((height - top) * (0.9 if width > height else 0.5) / (1.1 * letters.height)))]
    if len(names) < 2:
        names = ["A", "B"] if material.split == "train" else ["K", "L"]
    shares = _shares(material, len(names))
    paints = chart_parts.paint(material, len(names), paper)
    printed = rng.random() < 0.6
    texts = [f"{share}%" for share in shares]
    angle = rng.uniform(0, 360) if rng.random() < 0.5 else -90.0
    hole = rng.uniform(0.3, 0.5) if material.split == "held_out" and rng.random() < 0.4 else 0.0
    middles = []
    for share in shares:
        middles.append(math.radians(angle + 1.8 * share))
        angle += 3.6 * share
    around = (
        _labels_around(letters, box, names, middles)
        if min(width, height) > 150 and rng.random() < 0.5
        else None
    )
    if around is None:
        pie = _legend(letters, box, names, paints)
        x, y, radius = (pie[0] + pie[2]) / 2, (pie[1] + pie[3]) / 2, min(pie[2] - pie[0], pie[3] - pie[1]) / 2
    else:
        x, y, radius = around
    for (colour, fill), share, middle in zip(paints, shares, middles, strict=True):
        half = math.radians(1.8 * share)
        canvas.slice(
            colour, fill, (x - radius, y - radius, x + radius, y + radius),
            math.degrees(middle - half), math.degrees(middle + half),
        )  # fmt: skip
    if hole:
        inner = radius * hole
        canvas.ellipse(
            "", colours.NAMES[0], paper, (x - inner, y - inner, x + inner, y + inner)
        )  # number 0: nothing
    # A share is written in its slice: all are, or none is.
    at = radius * (1 + hole * 0.6) * 0.62
    wide = letters.widest(texts)
    printed = printed and all(
        2 * at * math.sin(math.radians(1.8 * min(share, 50))) > wide * 1.1 for share in shares
    )
    printed = printed and radius * (1 - hole) > 1.1 * wide
    for text, (_, fill), middle in zip(texts, paints, middles, strict=True):
        if printed:
            letters.in_ink(ink_on(fill)).write(
                x + at * math.cos(middle), y + at * math.sin(middle), text, 0.5
            )
    _ask(material, questions, names, shares, [colour for colour, _ in paints], printed)
    questions.ask(canvas)
    return canvas


def _shares(material: Material, count: int) -> list[int]:
    """Return percentages that sum to 100 and of which any two differ by 3 at least."""
    rng = material.rng
    shares = [7 + 3 * number for number in range(count)]
    shares[-1] += 2  # the largest stands out a little more
    rest = 100 - sum(shares)
    while rest:
        largest = rng.randint(1, min(count, rest))  # that many of the largest grow by one: no gap shrinks
        for number in range(count - largest, count):
            shares[number] += 1
        rest -= largest
    rng.shuffle(shares)
    return shares


def _legend(letters: Pen, box: Box, names: list[str], paints: list[tuple[str, RGB]]) -> Box:
    """Write the legend beside the pie, or beneath it, and return the room that is left."""
    left, top, right, bottom = box
    step, side = letters.height * 1.1, 0.7 * letters.size
    wide, high = letters.widest(names) + 1.8 * letters.size, step * len(names)
    beside = right - left - wide > bottom - top - high
    if beside:
        x, y = right - wide + 0.4 * letters.size, top + (bottom - top - high) / 2
        rest = (left, top, right - wide, bottom)
    else:
        x, y = left + (right - left - wide) / 2, bottom - high
        rest = (left, top, right, bottom - high - 0.3 * letters.size)
    for name, (colour, fill) in zip(names, paints, strict=True):
        middle = y + step / 2
        letters.canvas.area(
            "square", colour, fill, rectangle((x, middle - side / 2, x + side, middle + side / 2))
        )
        letters.write(x + 1.3 * letters.size, middle, name)
        y += step
    return rest


def _labels_around(
    letters: Pen, box: Box, names: list[str], middles: list[float]
) -> tuple[float, float, float] | None:
    """Write each label beside its slice; return the pie's middle and radius, or None where they have no room."""
    left, top, right, bottom = box
    wide, high = letters.widest(names), letters.height
    radius = min((right - left) / 2 - wide - 0.4 * letters.size, (bottom - top) / 2 - high)
    if radius < 2.5 * letters.size:
        return None
    x, y = (left + right) / 2, (top + bottom) / 2
    places: list[tuple[float, float, float, float]] = []
    for name, middle in zip(names, middles, strict=True):
        anchor = min(1.0, max(0.0, 0.5 - 0.9 * math.cos(middle)))  # what lies to the left ends at the pie
        place = (
            x + (radius + 0.4 * letters.size) * math.cos(middle),
            y + (radius + 0.6 * high) * math.sin(middle),
        )
        start = place[0] - anchor * letters.width(name)
        if any(
            abs(place[1] - p[1]) < high and start < p[3] + 4 and p[2] < start + letters.width(name) + 4
            for p in places
        ):
            return None
        places.append((place[0], place[1], start, start + letters.width(name)))
    for name, (_, label_y, start, _) in zip(names, places, strict=True):
        letters.write(start, label_y, name)
    return x, y, radius


def _ask(
    material: Material,
    questions: Questions,
    names: list[str],
    shares: list[int],
    paints: list[str],
    printed: bool,
) -> None:
    questions.add(MOST, names[shares.index(max(shares))])
    questions.add(LEAST, names[shares.index(min(shares))])
    questions.add(COUNT, str(len(names)))
    one, two = material.rng.sample(range(len(names)), 2)
    if abs(shares[one] - shares[two]) >= 5:
        questions.add(
            GREATER, names[max(one, two, key=shares.__getitem__)], first=names[one], second=names[two]
        )
    for name, share, colour in zip(names, shares, paints, strict=True):
        questions.add(COLOUR, colour, label=name)
        questions.add(OF_COLOUR, name, colour=colour)
        if printed:
            questions.add(SHARE, f"{share}%", label=name)
            questions.add(LABEL, name, share=f"{share}%")
