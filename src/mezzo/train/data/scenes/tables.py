"""Tables: a head, rows with names, and cells to be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mezzo.train.data import colours, vocabulary
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas
from mezzo.train.data.scenes.common import Pen, Questions, Wording, ink_on, mixed, paper_and_ink, pen, tilt
from mezzo.train.data.vocabulary import Halves

PEOPLE = Halves(("Name", "Player", "Student", "Driver"), ("Member", "Runner"))
PLACES = Halves(("City", "Town", "Place"), ("Airport", "Station"))
GOODS = Halves(("Item", "Product", "Article"), ("Goods", "Part"))
SERVICES = Halves(("Service", "Task"), ("Job", "Work"))
WORDS = Halves(("Word", "Project", "Team"), ("Group", "Label"))
COUNTS = Halves(
    ("Qty", "Points", "Score", "Age", "Goals", "Stock", "Pages", "Km"), ("Visits", "Votes", "Laps", "Size")
)
PRICES = Halves(("Price", "Cost", "Pay"), ("Fee", "Rent"))
SHARES = Halves(("Share", "Rate", "Growth"), ("Tax", "Change"))
TIMES = Halves(("Time", "Start", "Opens"), ("Leaves", "Ends"))
CODES = Halves(("Code", "ID", "Room"), ("Gate", "Seat"))
COLOURS = Halves(("Colour", "Color"), ("Shade",))
DAYS = Halves(("Day", "Due"), ("When",))
DAY_NAMES = Halves(("Mon", "Tue", "Wed", "Thu", "Fri"), ("Sat", "Sun"))

CELL = Wording(
    ("What is the {column} of {row}?", "What is {column} for {row}?", "In the row {row}, what is the {column}?",
     "Which {column} does {row} have?"),
    ("Look up {column} for {row}.", "Find {row}: which {column} is listed?"),
    "table_cell",
)  # fmt: skip
ROW = Wording(
    ("Which {head} has the {column} {value}?", "For which {head} is the {column} {value}?"),
    ("Name the {head} whose {column} is {value}.",),
    "table_cell",
)
MOST = Wording(
    ("Which {head} has the highest {column}?", "Which {head} has the greatest {column}?"),
    ("Name the {head} with the largest {column}.",),
    "table_extreme",
)
LEAST = Wording(
    ("Which {head} has the lowest {column}?", "The lowest {column}: which {head} has it?"),
    ("Name the {head} with the smallest {column}.",),
    "table_extreme",
)
ROWS = Wording(
    ("How many rows does the table have, without the header?", "How many {head} rows are there?"),
    ("Count the rows beneath the head.",),
    "table_count",
)
COLUMNS = Wording(
    ("How many columns are there?", "Count the columns."),
    ("What number of columns is there?",),
    "table_count",
)
HEAD = Wording(
    ("What is the header of column {number}?", "What is column {number} called?"),
    ("Read the head of column {number}.",),
    "table_head",
)


@dataclass(frozen=True)
class Column:
    head: str
    cells: tuple[str, ...]
    is_numeric: bool = False


def table(material: Material, width: int, height: int) -> Canvas:
    """Draw a table and ask for cells of it."""
    rng = material.rng
    paper, ink = paper_and_ink(rng)
    canvas = Canvas(width, height, paper)
    letters = pen(material, canvas, ink, 7, 20)
    pad = letters.size * rng.uniform(0.35, 0.6)
    step = letters.height * rng.uniform(1.05, 1.5)
    margin = max(5.0, 0.03 * width)
    count = min(rng.randint(2, 6), int((height - 2 * margin) / step) - 1)
    columns = _columns(material, count, rng.randint(2, 4))
    while len(columns) > 2 and _wide(letters, columns, pad) > width - 2 * margin:
        columns.pop()
    bare = _wide(letters, columns, 0)
    letters = letters.resized(
        letters.size * min(1.0, (width - 2 * margin - 2 * pad * len(columns)) / bare), 8
    )
    if (
        material.split == "held_out" and len(columns) > 2
    ):  # names never stand in the middle of what is trained on
        columns = [columns[1], columns[0], *columns[2:]]
    _draw(material, letters, columns, pad, step, margin)
    _ask(material, columns, canvas)
    tilt(canvas, material, 4)
    return canvas


def _columns(material: Material, count: int, num_columns: int) -> list[Column]:
    """Make up names of rows, and what is known of each."""
    rng = material.rng
    names: tuple[Halves, Callable[[], list[str]]] = rng.choice(
        (
            (PEOPLE, lambda: vocabulary.FIRST_NAMES.sample(material, count)),
            (PLACES, lambda: vocabulary.CITIES.sample(material, count)),
            (GOODS, lambda: vocabulary.GOODS.sample(material, count)),
            (SERVICES, lambda: vocabulary.SERVICES.sample(material, count)),
            (WORDS, lambda: _different(lambda: material.word(8).capitalize(), count)),
        )
    )
    high = rng.choice((9, 99, 999)) if material.split == "train" else rng.choice((60, 400))
    price, named_colours = vocabulary.MONEY.pick(material), colours.NAMES
    others: list[tuple[Halves, Callable[[], str], bool]] = [
        (COUNTS, lambda: str(rng.randint(1, high)), True),
        (COUNTS, lambda: str(rng.randint(10, 10 * high)), True),
        (PRICES, lambda: price.format(vocabulary.cents(material.amount(high))), False),
        (SHARES, lambda: f"{rng.randint(0, 99)}%", True), (TIMES, material.time, False),
        (CODES, material.code, False), (COLOURS, lambda: rng.choice(named_colours), False),
        (DAYS, lambda: DAY_NAMES.pick(material), False),
    ]  # fmt: skip
    made = [Column(names[0].pick(material), tuple(names[1]()))]
    for heads, make, is_numeric in rng.sample(others, num_columns - 1):
        head = heads.pick(material)
        if all(head != column.head for column in made):
            made.append(Column(head, tuple(make() for _ in range(count)), is_numeric))
    return made


def _different(make: Callable[[], str], count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[make()] = None
    return list(found)


def _widths(letters: Pen, columns: list[Column], pad: float) -> list[float]:
    return [letters.widest([column.head, *column.cells]) + 2 * pad for column in columns]


def _wide(letters: Pen, columns: list[Column], pad: float) -> float:
    return sum(_widths(letters, columns, pad))


def _draw(
    material: Material, letters: Pen, columns: list[Column], pad: float, step: float, margin: float
) -> None:
    rng, canvas = material.rng, letters.canvas
    widths = _widths(letters, columns, pad)
    spare = canvas.width - 2 * margin - sum(widths)
    widths = [width + max(0.0, spare) * rng.uniform(0, 1) / len(widths) for width in widths]
    rows = len(columns[0].cells)
    left = margin + max(0.0, canvas.width - 2 * margin - sum(widths)) * rng.random()
    top = margin + (canvas.height - 2 * margin - step * (rows + 1)) * rng.random()
    right, bottom = left + sum(widths), top + step * (rows + 1)
    style = rng.choice(("grid", "rows", "head", "zebra", "box"))
    line = mixed(canvas.paper, letters.ink, rng.uniform(0.3, 1))
    head_pen, draw = letters, canvas.draw
    if rng.random() < 0.4:
        fill = colours.shade(rng, rng.choice(("blue", "green", "grey", "red", "purple", "black", "orange")))
        draw.rectangle((left, top, right, top + step), fill=fill)
        head_pen = letters.in_ink(ink_on(fill))
    for row in range(rows + 2):
        y = top + row * step
        if style == "zebra" and row % 2 == 0 and 0 < row <= rows:
            draw.rectangle((left, y, right, y + step), fill=mixed(canvas.paper, letters.ink, 0.09))
        lines = {"grid": range(rows + 2), "rows": range(rows + 2), "box": (0, rows + 1)}.get(style, (1,))
        if row in lines:
            draw.line((left, y, right, y), fill=line)
    anchors = [1.0 if c.is_numeric and rng.random() < 0.7 else rng.choice((0.0, 0.0, 0.5)) for c in columns]
    x = left
    for column, width, anchor in zip(columns, widths, anchors, strict=True):
        if style == "grid" or (style == "box" and x == left):
            draw.line((x, top, x, bottom), fill=line)
        at = x + pad + anchor * (width - 2 * pad)
        for row, cell in enumerate((column.head, *column.cells)):
            (letters if row else head_pen).write(at, top + (row + 0.5) * step, cell, anchor)
        x += width
    if style in ("grid", "box"):
        draw.line((right, top, right, bottom), fill=line)


def _ask(material: Material, columns: list[Column], canvas: Canvas) -> None:
    questions = Questions(material)
    names = next(column for column in columns if column.head in _NAME_HEADS)
    for number, column in enumerate(columns, start=1):
        questions.add(HEAD, column.head, number=str(number))
        if column is names:
            continue
        for name, cell in zip(names.cells, column.cells, strict=True):
            questions.add(CELL, cell, column=column.head, row=name)
            if column.cells.count(cell) == 1:
                questions.add(ROW, name, head=names.head, column=column.head, value=cell)
        if column.is_numeric:
            values = [int(cell.rstrip("%")) for cell in column.cells]
            for wording, value in ((MOST, max(values)), (LEAST, min(values))):
                if values.count(value) == 1:
                    questions.add(
                        wording, names.cells[values.index(value)], head=names.head, column=column.head
                    )
    questions.add(ROWS, str(len(names.cells)), head=names.head)
    questions.add(COLUMNS, str(len(columns)))
    questions.ask(canvas)


_NAME_HEADS = frozenset(
    head for halves in (PEOPLE, PLACES, GOODS, SERVICES, WORDS) for head in halves.train + halves.held_out
)
