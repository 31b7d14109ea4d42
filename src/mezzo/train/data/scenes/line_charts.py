"""Charts of lines: one or two, over labels in order."""

from __future__ import annotations

from mezzo.train.data.colours import RGB
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas
from mezzo.train.data.scenes import chart_parts
from mezzo.train.data.scenes.chart_parts import Axis
from mezzo.train.data.scenes.common import Box, Pen, Questions, Wording, mixed
from mezzo.train.data.vocabulary import Halves

POINTS = Wording(
    ("How many points does the line have?", "How many labels are on the horizontal axis?"),
    ("Count the points along the line.",),
    "chart_count",
)
TREND = Wording(
    (
        "Does the line rise or fall from {first} to {second}?",
        "From {first} to {second}, does it rise or fall?",
    ),
    ("Between {first} and {second}: rise or fall?",),
    "chart_trend",
)
LINES = Wording(
    ("How many lines are there?", "Count the lines."), ("What number of lines is drawn?",), "chart_count"
)
COLOUR = Wording(
    ("What colour is the line?", "What color is the line?"), ("Name the colour of the line.",), "chart_colour"
)
COLOUR_OF = Wording(
    ("What colour is the line of {name}?", "Which colour does {name} have?"),
    ("Name the colour of {name}.",),
    "chart_colour",
)
HIGHER = Wording(
    ("At {label}, which is higher, {first} or {second}?", "Is {first} or {second} higher at {label}?"),
    ("Name the line on top at {label}: {first} or {second}.",),
    "chart_compare",
)
SERIES = Halves(
    ("North", "South", "East", "West", "Men", "Women", "Cars", "Bikes", "Plan", "Actual"),
    ("Urban", "Rural", "Import", "Export"),
)


def line_chart(material: Material, width: int, height: int) -> Canvas:
    """Draw one line, or two where there is room, and ask where it goes."""
    rng = material.rng
    chart = chart_parts.start(material, width, height)
    canvas, paper, letters, questions = chart.canvas, chart.paper, chart.letters, chart.questions
    margin, top = chart.margin, chart.top
    left, right, bottom = margin, width - margin, height - margin - 1.1 * letters.height
    double = min(width, height) > 200 and rng.random() < 0.35
    series = [name for name in SERIES.sample(material, 2) if double]
    paints = chart_parts.paint(material, 2 if double else 1, paper)
    if double:
        top = _legend(letters, series, paints, (left, top, right, bottom))
    printed = not double and rng.random() < 0.5
    shown = not printed or rng.random() < 0.5
    top += letters.height * (0.9 if printed else 0.5)
    scale = chart_parts.axis(material, int((bottom - top) / (1.3 * letters.height)))
    indent = (
        letters.widest([str(scale.top), str(scale.step)]) + 0.5 * letters.size
        if shown
        else letters.size * 0.3
    )
    names = chart_parts.labels(material, rng.randint(4, 7), ordered=True)
    widest = (
        max(letters.widest(names), letters.width(f"{scale.top}") if printed else 0.0) + 0.4 * letters.size
    )
    names = names[: max(2, int((right - left - indent) / widest))]
    rows = [chart_parts.values(material, scale, len(names)) for _ in range(1 + double)]
    names = names[: min(map(len, rows))]
    box = (left + indent, top, right, bottom)
    _axes(letters, box, scale if shown else None)
    slot = (box[2] - box[0]) / len(names)
    xs = [box[0] + (number + 0.5) * slot for number in range(len(names))]
    for x, name in zip(xs, names, strict=True):
        letters.write(x, bottom + 0.65 * letters.height, name, 0.5)
    marked = printed or rng.random() < 0.7
    thick = max(2, round(min(width, height) * rng.uniform(0.006, 0.014)))
    for numbers, paint in zip(rows, paints, strict=True):
        points = [
            (x, bottom - number * (bottom - top) / scale.top) for x, number in zip(xs, numbers, strict=False)
        ]
        _line(letters, points, paint, thick, marked=marked)
        if printed:
            _print(letters, points, numbers, bottom)
    if double:
        _ask_two(questions, material, names, rows, series, [name for name, _ in paints], scale)
    else:
        known = [printed or scale.is_tick(number) for number in rows[0]]
        chart_parts.ask_values(questions, material, names, rows[0][: len(names)], known[: len(names)])
        at = rng.randrange(len(names) - 1)
        trend = "rise" if rows[0][at] < rows[0][at + 1] else "fall"
        questions.add(TREND, trend, first=names[at], second=names[at + 1])
        questions.add(COLOUR, paints[0][0])
        questions.add(POINTS, str(len(names)))
    questions.ask(canvas)
    return canvas


def _axes(letters: Pen, box: Box, scale: Axis | None) -> None:
    left, top, right, bottom = box
    draw = letters.canvas.draw
    for number in range(scale.count + 1 if scale is not None else 0):
        assert scale is not None
        y = bottom - number * (bottom - top) / scale.count
        letters.write(left - 0.4 * letters.size, y, str(number * scale.step), 1)
        draw.line((left, y, right, y), fill=mixed(letters.canvas.paper, letters.ink, 0.18))
    draw.line((left, bottom, right, bottom), fill=letters.ink)
    draw.line((left, top, left, bottom), fill=letters.ink)


def _line(
    letters: Pen, points: list[tuple[float, float]], paint: tuple[str, RGB], thick: int, *, marked: bool
) -> None:
    name, fill = paint
    letters.canvas.stroke(name, fill, points, thick)
    radius = thick * 1.3 + 1
    for x, y in points if marked else ():
        letters.canvas.ellipse("line", name, fill, (x - radius, y - radius, x + radius, y + radius))


def _print(letters: Pen, points: list[tuple[float, float]], numbers: list[int], bottom: float) -> None:
    """Write each value on the side of its point from which the line does not come."""
    for number, ((x, y), value) in enumerate(zip(points, numbers, strict=False)):
        beside = [points[n][1] for n in (number - 1, number + 1) if 0 <= n < len(points)]
        above = y <= sum(beside) / len(beside) or y + 1.3 * letters.size > bottom
        letters.write(x, y - 0.85 * letters.size if above else y + 0.85 * letters.size, str(value), 0.5)


def _legend(letters: Pen, series: list[str], paints: list[tuple[str, RGB]], box: Box) -> float:
    """Show which colour is whose, in one row; return the y beneath."""
    left, top, right, _ = box
    mark = 1.2 * letters.size
    total = sum(letters.width(name) + mark + 0.4 * letters.size for name in series) + letters.size
    x = left + (right - left - total) / 2
    middle = top + letters.height / 2
    for name, (colour, fill) in zip(series, paints, strict=True):
        letters.canvas.stroke(colour, fill, [(x, middle), (x + mark, middle)], max(2, letters.size // 5))
        letters.write(x + mark + 0.4 * letters.size, middle, name)
        x += mark + 1.4 * letters.size + letters.width(name)
    return top + letters.height * 1.1


def _ask_two(
    questions: Questions, material: Material, names: list[str], rows: list[list[int]], series: list[str],
    paints: list[str], scale: Axis,
) -> None:  # fmt: skip
    questions.add(LINES, "2")
    for name, colour in zip(series, paints, strict=True):
        questions.add(COLOUR_OF, colour, name=name)
    first, second = series
    for label, one, two in zip(names, rows[0], rows[1], strict=False):
        if abs(one - two) >= 1.5 * chart_parts.LEAST_GAP * scale.top:
            questions.add(HIGHER, first if one > two else second, label=label, first=first, second=second)
