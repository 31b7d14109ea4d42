"""Filled forms: fields with labels, and boxes that are ticked or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mezzo.train.data import vocabulary
from mezzo.train.data.colours import RGB
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas
from mezzo.train.data.scenes.common import (
    Box,
    Pen,
    Questions,
    Wording,
    mixed,
    on_desk,
    paper_and_ink,
    pen,
    tilt,
)
from mezzo.train.data.vocabulary import Halves

TITLES = Halves(
    (
        "Application",
        "Registration",
        "Order form",
        "Sign up",
        "Booking",
        "Contact",
        "Patient form",
        "Membership",
    ),
    ("Enrolment", "Visitor form", "Questionnaire", "Claim form"),
)
NAMES = Halves(("Name", "Full name", "Contact", "Guest", "Applicant"), ("Signed by", "Member", "Visitor"))
PLACES = Halves(("City", "Town", "Place of birth", "From"), ("Destination", "Office"))
DATES = Halves(("Date", "Date of birth", "Start date", "Arrival"), ("Departure", "Valid from"))
CODES = Halves(("Code", "Order no.", "ID", "Room", "Reference"), ("File no.", "Badge", "Seat"))
NUMBERS = Halves(("Age", "Persons", "Nights", "Quantity"), ("Copies", "Weight", "Floor"))
PHONES = Halves(("Phone", "Mobile", "Telephone"), ("Fax", "Call at"))
FIRMS = Halves(("Company", "Employer", "School"), ("Sponsor", "Agency"))
JOBS = Halves(("Job", "Position", "Profession"), ("Occupation", "Role"))
WORDS = Halves(("Subject", "Project", "Title", "Product"), ("Topic", "Keyword", "Category"))
OPTIONS = Halves(
    ("Newsletter", "Breakfast", "Parking", "Urgent", "Student", "Member", "Express", "Gift wrap", "Vegan", "Smoker",
     "Married", "Insurance", "Pickup", "Invoice", "Window seat"),
    ("Wi-Fi", "Late arrival", "Retired", "Pets", "Discount", "Delivery", "Single room"),
)  # fmt: skip

VALUE = Wording(
    ("What is entered under {label}?", "What is filled in for {label}?", "What is the value of {label}?",
     "What does the form say for {label}?"),
    ("Which entry does {label} have?", "Read the field {label}."),
    "form_field",
)  # fmt: skip
LABEL = Wording(
    ("Which field says {value}?", "In which field is {value} entered?"),
    ("Name the field that has {value} in it.",),
    "form_field",
)
TITLE = Wording(
    ("What is the title of the form?", "Which form is this?"),
    ("Read the heading of the form.",),
    "form_title",
)
TICKED = Wording(
    ("Is {option} ticked?", "Is {option} checked?", "Is the box {option} marked?"),
    ("Has {option} been selected?",),
    "form_box",
)
WHICH = Wording(
    ("Which option is ticked?", "Which box is checked?"), ("Name the option that is selected.",), "form_box"
)
HOW_MANY = Wording(
    ("How many boxes are ticked?", "How many boxes are checked?"), ("Count the ticks.",), "form_box"
)


@dataclass(frozen=True)
class Style:
    """How a form is filled in. frame: "line", "box", "" for the value; above: labels stand over their values."""

    frame: str
    above: bool
    colon: str
    aligned: bool
    value_pen: Pen


def form(material: Material, width: int, height: int) -> Canvas:
    """Draw a form and ask what is entered."""
    rng = material.rng
    paper, ink = paper_and_ink(rng)
    canvas, sheet = on_desk(material, width, height, paper, narrowest=0.7)
    letters = pen(material, canvas, ink, 8, 21 * width / (sheet[2] - sheet[0]))
    margin = max(6.0, 0.04 * (sheet[2] - sheet[0]))
    box = (sheet[0] + margin, sheet[1] + margin * 0.7, sheet[2] - margin, sheet[3] - margin * 0.7)
    questions = Questions(material)
    top = box[1]
    if rng.random() < 0.7:
        title = TITLES.pick(material)
        large = letters.resized(letters.size * rng.uniform(1, 1.4)).fitted(title, box[2] - box[0])
        middle = rng.choice((0.0, 0.5))
        large.write(box[0] + middle * (box[2] - box[0]), top + large.height / 2, title, middle)
        questions.add(TITLE, title)
        top += large.height * 1.15
    boxes = rng.randint(0, 3) if box[3] - top > 4.5 * letters.height else 0
    writing = Pen(canvas, material.font(letters.size), rng.choice((ink, ink, (20, 40, 150))))
    if canvas.paper == paper and sum(paper) < 300:
        writing = writing.in_ink(ink)
    style = Style(
        frame=rng.choice(("line", "box", "")),
        above=rng.random() < 0.25 or box[2] - box[0] < 15 * letters.size,
        colon=rng.choice(("", ":", ":")),
        aligned=rng.random() < 0.6,
        value_pen=letters if rng.random() < 0.5 else writing,
    )
    end = box[3] - boxes * letters.height * 1.15
    top = _fields(material, letters, (box[0], top, box[2], end), style, questions)
    _boxes(material, letters, (box[0], top, box[2], box[3]), boxes, questions)
    questions.ask(canvas)
    tilt(canvas, material, 4)
    return canvas


def _fields(material: Material, letters: Pen, box: Box, style: Style, questions: Questions) -> float:
    rng = material.rng
    left, top, right, bottom = box
    makers: list[tuple[Halves, Callable[[], str]]] = [
        (NAMES, lambda: vocabulary.person(material)), (PLACES, lambda: vocabulary.CITIES.pick(material)),
        (DATES, material.date), (CODES, material.code), (NUMBERS, lambda: str(rng.randint(1, 99))),
        (PHONES, lambda: vocabulary.phone(material)), (FIRMS, lambda: vocabulary.firm(material)),
        (JOBS, lambda: vocabulary.JOBS.pick(material)), (WORDS, lambda: material.word(10)),
    ]  # fmt: skip
    rng.shuffle(makers)
    labels = [names.pick(material) for names, _ in makers]
    room = (right - left) * (0.95 if style.above else 0.6)
    makers = [maker for maker, label in zip(makers, labels, strict=True) if letters.width(label) < room]
    labels = [label for label in labels if letters.width(label) < room]
    step = letters.height * ((2.25 if style.above else 1.15) + (0.15 if style.frame == "box" else 0))
    count = min(rng.randint(2, 7), int((bottom - top) / step))
    indent = letters.widest([label + style.colon for label in labels[:count]]) + 0.6 * letters.size
    grey = mixed(letters.ink, letters.canvas.image.getpixel((int(left), int(top))), 0.5)  # type: ignore[arg-type]
    values = set[str]()
    for label, (_, make) in list(zip(labels, makers, strict=True))[:count]:
        middle = top + letters.height * 0.6
        letters.write(left, middle, label + style.colon)
        start = left + (indent if style.aligned else letters.width(label + style.colon) + 0.6 * letters.size)
        if style.above:
            middle, start = middle + letters.height, left + 4
        value = style.value_pen.first_that_fits(make, right - start - 6)
        _frame(letters, style.frame, (start - 4, middle, right, middle), grey)
        if value and value not in values:
            style.value_pen.write(start + 1, middle, value)
            questions.add(VALUE, value, label=label)
            questions.add(LABEL, label, value=value)
            values.add(value)
        top += step
    return top


def _frame(letters: Pen, frame: str, box: Box, grey: RGB) -> None:
    left, middle, right, _ = box
    half = letters.height * 0.52
    if frame == "line":
        letters.canvas.draw.line((left, middle + half, right, middle + half), fill=grey)
    elif frame == "box":
        letters.canvas.draw.rectangle((left, middle - half, right, middle + half), outline=grey)


def _boxes(material: Material, letters: Pen, box: Box, count: int, questions: Questions) -> None:
    """Draw boxes to tick, some of them ticked."""
    rng = material.rng
    left, top, right, _ = box
    side = round(letters.size * 0.75)
    draw, mark = letters.canvas.draw, rng.choice(("tick", "cross", "fill"))
    options = [
        option
        for option in OPTIONS.sample(material, count)
        if letters.width(option) < right - left - 2 * side
    ]
    ticked = [rng.random() < 0.5 for _ in options]
    before = material.split == "train"  # the box stands behind its label only where it is held out
    for option, is_ticked in zip(options, ticked, strict=True):
        middle = top + letters.height * 0.6
        x = left if before else left + letters.width(option) + 0.5 * side
        y = middle - side / 2
        draw.rectangle((x, y, x + side, y + side), outline=letters.ink)
        letters.write(left + 1.5 * side if before else left, middle, option)
        if is_ticked:
            _mark(letters, mark, x, y, side)
        questions.add(TICKED, "yes" if is_ticked else "no", option=option)
        top += letters.height * 1.15
    if len(options) > 1:
        questions.add(HOW_MANY, str(sum(ticked)))
        if sum(ticked) == 1:
            questions.add(WHICH, options[ticked.index(True)])


def _mark(letters: Pen, mark: str, x: float, y: float, side: int) -> None:
    draw, ink, wide = letters.canvas.draw, letters.ink, max(1, side // 6)
    far = side - 2
    if mark == "fill":
        draw.rectangle((x + 3, y + 3, x + side - 3, y + side - 3), fill=ink)
    elif mark == "cross":
        draw.line((x + 2, y + 2, x + far, y + far), fill=ink, width=wide)
        draw.line((x + 2, y + far, x + far, y + 2), fill=ink, width=wide)
    else:
        draw.line((x + 2, y + side * 0.5, x + side * 0.42, y + far, x + far, y + 2), fill=ink, width=wide)
