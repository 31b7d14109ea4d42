"""What charts share: labels, values that can be told apart, axes, and the questions."""

from __future__ import annotations

from dataclasses import dataclass

from mezzo.train.data import colours, vocabulary
from mezzo.train.data.colours import RGB
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas
from mezzo.train.data.scenes.common import Pen, Questions, Wording, paper_and_ink, pen
from mezzo.train.data.vocabulary import Halves

MONTHS = Halves(("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug"), ("Sep", "Oct", "Nov", "Dec"))
DAYS = Halves(("Mon", "Tue", "Wed", "Thu", "Fri"), ("Mo", "Tu", "We", "Th", "Fr", "Sa"))
YEARS = Halves(tuple(map(str, range(2000, 2022))), tuple(map(str, range(2022, 2034))))
QUARTERS = Halves(("Q1", "Q2", "Q3", "Q4"), ("H1", "H2", "H3", "H4"))
LETTERS = Halves(tuple("ABCDEFGH"), tuple("KLMNPRST"))
ANIMALS = Halves(
    ("Cats", "Dogs", "Fish", "Birds", "Cows", "Pigs", "Sheep"), ("Goats", "Ducks", "Bees", "Mice", "Hens")
)
SPORTS = Halves(
    ("Tennis", "Soccer", "Golf", "Rugby", "Chess", "Hockey"), ("Judo", "Polo", "Darts", "Skiing", "Boxing")
)
POWERS = Halves(("Coal", "Gas", "Solar", "Wind", "Oil", "Hydro"), ("Nuclear", "Biomass", "Tidal", "Peat"))
UNORDERED = (LETTERS, ANIMALS, SPORTS, POWERS, vocabulary.GOODS, vocabulary.CITIES, vocabulary.FIRST_NAMES)
ORDERED = (MONTHS, DAYS, YEARS, QUARTERS)
TITLES = Halves(
    (
        "Sales",
        "Visitors",
        "Results",
        "Output",
        "Orders",
        "Users",
        "Votes",
        "Profit",
        "Exports",
        "Survey",
        "Points",
    ),
    ("Turnover", "Imports", "Readers", "Budget", "Demand", "Harvest"),
)

MOST = Wording(
    ("Which has the highest value?", "Which label has the highest value?", "Which one is the largest?",
     "What has the highest value?"),
    ("Name the label with the greatest value.", "Where is the maximum?"),
    "chart_extreme",
)  # fmt: skip
LEAST = Wording(
    ("Which has the lowest value?", "Which label has the lowest value?", "Which one is the smallest?",
     "What has the lowest value?"),
    ("Name the label with the least value.", "Where is the minimum?"),
    "chart_extreme",
)  # fmt: skip
VALUE = Wording(
    ("What is the value of {label}?", "What is the value for {label}?", "How much is {label}?"),
    ("Read the value at {label}.", "Which value does {label} reach?"),
    "chart_value",
)
LABEL = Wording(
    ("Which label has the value {value}?", "Which one is at {value}?"), ("Name the label that reaches {value}.",),
    "chart_value",
)  # fmt: skip
DIFFERENCE = Wording(
    ("What is the difference between {first} and {second}?", "How much more is {first} than {second}?"),
    ("By how much does {first} exceed {second}?",),
    "chart_difference",
)
GREATER = Wording(
    ("Which is larger, {first} or {second}?", "Which is higher, {first} or {second}?"),
    ("Of {first} and {second}, name the greater.",),
    "chart_compare",
)
TITLE = Wording(
    ("What is the title of the chart?", "What does the chart show?"),
    ("Read the heading of the chart.",),
    "chart_title",
)

_STEPS = {"train": (1, 2, 5, 10, 20, 50, 100, 200), "held_out": (3, 4, 15, 25, 30, 40, 150)}
LEAST_GAP = 0.08  # of the axis, between any two values


@dataclass(frozen=True)
class Axis:
    """Ticks at multiples of `step`, `count` of them above 0."""

    step: int
    count: int

    @property
    def top(self) -> int:
        return self.step * self.count

    def is_tick(self, value: int) -> bool:
        return value % self.step == 0


@dataclass(frozen=True)
class Start:
    """A chart before anything but its title is drawn; `top` is the y beneath the title, or of where it would be."""

    canvas: Canvas
    paper: RGB
    letters: Pen
    questions: Questions
    margin: float
    top: float


def start(material: Material, width: int, height: int) -> Start:
    """Take paper and letters, and write a title, sometimes."""
    paper, ink = paper_and_ink(material.rng)
    canvas = Canvas(width, height, paper)
    letters = pen(material, canvas, ink, 8.5, 20)
    questions = Questions(material)
    margin = max(4.0, 0.025 * min(width, height))
    top = title(material, letters, questions, width - 2 * margin, margin)
    return Start(canvas, paper, letters, questions, margin, top)


def axis(material: Material, most_ticks: int) -> Axis:
    """Choose ticks, no more than there is room for."""
    count = material.rng.randint(2, max(2, min(6, most_ticks)))
    return Axis(material.rng.choice([step for step in _STEPS[material.split] if step * count >= 10]), count)


def values(material: Material, scale: Axis, count: int) -> list[int]:
    """Return whole numbers on the axis of which any two differ visibly; fewer where they do not fit."""
    rng = material.rng
    gap = max(1.0, LEAST_GAP * scale.top)
    found: list[int] = []
    for _ in range(60):
        if len(found) == count:
            break
        on_tick = rng.random() < 0.5
        value = scale.step * rng.randint(1, scale.count) if on_tick else rng.randint(1, scale.top)
        if value >= 0.06 * scale.top and all(abs(value - other) >= gap for other in found):
            found.append(value)
    return found


def labels(material: Material, count: int, *, ordered: bool) -> list[str]:
    """Return up to `count` labels of one kind; ordered ones follow one another, as time does."""
    rng = material.rng
    if ordered:
        names = rng.choice(ORDERED).of(material)
        start = rng.randint(0, max(0, len(names) - count))
        return list(names[start : start + count])
    return rng.choice(UNORDERED).sample(material, count)


def paint(material: Material, count: int, paper: RGB) -> list[tuple[str, RGB]]:
    """Return different colours, with names, that stand out from the paper."""
    rng = material.rng
    found: list[tuple[str, RGB]] = []
    for name in rng.sample(colours.NAMES, len(colours.NAMES)):
        shade = colours.shade(rng, name)
        if colours.distance(shade, paper) > 90 and len(found) < count:
            found.append((name, shade))
    return found


def ask_values(
    questions: Questions, material: Material, names: list[str], numbers: list[int], known: list[bool]
) -> None:
    """Ask for extremes, for values that can be read exactly (`known`), and for what follows from them."""
    questions.add(MOST, names[numbers.index(max(numbers))])
    questions.add(LEAST, names[numbers.index(min(numbers))])
    readable = [
        (name, number) for name, number, is_known in zip(names, numbers, known, strict=True) if is_known
    ]
    for name, number in readable:
        questions.add(VALUE, str(number), label=name)
        questions.add(LABEL, name, value=str(number))
    for pairs, wording in ((list(zip(names, numbers, strict=True)), GREATER), (readable, DIFFERENCE)):
        if len(pairs) > 1:
            two = material.rng.sample(pairs, 2)
            (low, least), (high, most) = sorted(two, key=lambda pair: pair[1])
            if wording is DIFFERENCE:
                questions.add(DIFFERENCE, str(most - least), first=high, second=low)
            else:
                questions.add(GREATER, high, first=two[0][0], second=two[1][0])


def title(material: Material, letters: Pen, questions: Questions, room: float, top: float) -> float:
    """Write a title in the middle of the picture, sometimes; return the y beneath."""
    rng = material.rng
    if letters.canvas.height < 12 * letters.size or rng.random() < 0.3:
        return top
    text = TITLES.pick(material) + rng.choice(
        ("", "", f" {rng.randint(1995, 2030)}", " by group", " in total")
    )
    large = letters.resized(letters.size * rng.uniform(1, 1.3)).fitted(text, room)
    large.write(letters.canvas.width / 2, top + large.height / 2, text, 0.5)
    questions.add(TITLE, text)
    return top + large.height * 1.1
