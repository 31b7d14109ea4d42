"""Charts of bars, standing or lying."""

from __future__ import annotations

from mezzo.train.data.colours import RGB
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas
from mezzo.train.data.scenes import chart_parts
from mezzo.train.data.scenes.chart_parts import Axis
from mezzo.train.data.scenes.common import Box, Pen, Wording, mixed, rectangle

COUNT = Wording(
    ("How many bars are there?", "Count the bars."),
    ("What number of bars does the chart have?",),
    "chart_count",
)
COLOUR = Wording(
    ("What colour is the bar of {label}?", "What color is {label}?"),
    ("Name the colour of {label}.",),
    "chart_colour",
)
OF_COLOUR = Wording(
    ("What does the {colour} bar stand for?", "Which label does the {colour} bar have?"),
    ("Name the label of the {colour} bar.",),
    "chart_colour",
)


def bar_chart(material: Material, width: int, height: int) -> Canvas:
    """Draw bars and ask about their heights."""
    rng = material.rng
    chart = chart_parts.start(material, width, height)
    canvas, paper, letters, questions = chart.canvas, chart.paper, chart.letters, chart.questions
    margin, top = chart.margin, chart.top
    is_standing = rng.random() < (0.75 if material.split == "train" else 0.4)
    names = chart_parts.labels(material, rng.randint(3, 6), ordered=is_standing and rng.random() < 0.5)
    printed = rng.random() < 0.5
    box = (margin, top, width - margin, height - margin)
    if is_standing:  # until the labels have room beside each other
        room = width - 2 * margin - letters.width("1000 ")
        while len(names) > 3 and letters.widest(names) + 0.5 * letters.size > room / len(names):
            names.pop()
        is_standing = letters.widest(names) + 0.4 * letters.size <= room / len(names)
    names = names[: max(2, int((height - top - margin) / letters.height) - 1)]
    names = [name for name in names if letters.width(name) < 0.5 * width]
    space = height - top - 3 * letters.height if is_standing else (width - letters.widest(names)) / 2.5
    scale = chart_parts.axis(material, int(space / (1.3 * letters.height)))
    numbers = chart_parts.values(material, scale, len(names))
    names = names[: len(numbers)]
    # An axis may be missing where the values are printed.
    shown = not printed or rng.random() < 0.5
    many = chart_parts.paint(material, len(names) if rng.random() < 0.4 else 1, paper)
    fills = [many[number % len(many)] for number in range(len(names))]
    draw = _standing if is_standing else _lying
    draw(
        letters,
        box,
        scale if shown else None,
        scale.top,
        names,
        numbers,
        fills,
        printed,
        rng.uniform(0.45, 0.85),
    )
    chart_parts.ask_values(
        questions, material, names, numbers, [printed or scale.is_tick(number) for number in numbers]
    )
    questions.add(COUNT, str(len(names)))
    if len(many) == len(names):
        for name, (colour, _) in zip(names, fills, strict=True):
            questions.add(COLOUR, colour, label=name)
            questions.add(OF_COLOUR, name, colour=colour)
    questions.ask(canvas)
    return canvas


def _standing(
    letters: Pen, box: Box, scale: Axis | None, most: int, names: list[str], numbers: list[int],
    fills: list[tuple[str, RGB]], printed: bool, share: float,
) -> None:  # fmt: skip
    left, top, right, bottom = box
    draw = letters.canvas.draw
    bottom -= letters.height * 1.1
    top += letters.height * (1.0 if printed else 0.5)
    unit = (bottom - top) / most
    if scale is not None:
        ticks = [number * scale.step for number in range(scale.count + 1)]
        left += letters.widest([str(tick) for tick in ticks]) + 0.5 * letters.size
        for tick in ticks:
            y = bottom - tick * unit
            letters.write(left - 0.4 * letters.size, y, str(tick), 1)
            draw.line((left, y, right, y), fill=mixed(letters.canvas.paper, letters.ink, 0.22))
        draw.line((left, top, left, bottom), fill=letters.ink)
    slot = (right - left) / len(names)
    for number, (name, value, (colour, fill)) in enumerate(zip(names, numbers, fills, strict=True)):
        x = left + (number + 0.5) * slot
        bar = (x - slot * share / 2, bottom - value * unit, x + slot * share / 2, bottom)
        letters.canvas.area("bar", colour, fill, rectangle(bar))
        letters.write(x, bottom + 0.65 * letters.height, name, 0.5)
        if printed:
            text = str(value)
            letters.fitted(text, slot * 0.95).write(x, bar[1] - 0.55 * letters.size, text, 0.5)
    draw.line((left, bottom, right, bottom), fill=letters.ink)


def _lying(
    letters: Pen, box: Box, scale: Axis | None, most: int, names: list[str], numbers: list[int],
    fills: list[tuple[str, RGB]], printed: bool, share: float,
) -> None:  # fmt: skip
    left, top, right, bottom = box
    draw = letters.canvas.draw
    left += letters.widest(names) + 0.5 * letters.size
    right -= letters.width(str(most)) * (1.0 if printed else 0.5) + 0.4 * letters.size
    unit = (right - left) / most
    if scale is not None:
        bottom -= letters.height * 1.1
        # As many numbers as have room, the rest of the lines without: all of them, or every second, or the last.
        every = next(
            (
                n
                for n in (1, 2, 3)
                if letters.width(f"{most} ") < n * scale.step * unit and scale.count % n == 0
            ),
            scale.count,
        )
        for number in range(scale.count + 1):
            x = left + number * scale.step * unit
            draw.line((x, top, x, bottom), fill=mixed(letters.canvas.paper, letters.ink, 0.22))
            if number % every == 0:
                letters.write(x, bottom + 0.65 * letters.height, str(number * scale.step), 0.5)
    slot = (bottom - top) / len(names)
    for number, (name, value, (colour, fill)) in enumerate(zip(names, numbers, fills, strict=True)):
        y = top + (number + 0.5) * slot
        end = left + value * unit
        letters.canvas.area(
            "bar", colour, fill, rectangle((left, y - slot * share / 2, end, y + slot * share / 2))
        )
        letters.write(left - 0.4 * letters.size, y, name, 1)
        if printed:
            letters.write(end + 0.3 * letters.size, y, str(value))
    draw.line((left, top, left, bottom), fill=letters.ink)
