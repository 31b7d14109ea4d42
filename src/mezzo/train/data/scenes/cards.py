"""Business cards: whose they are, and how to reach them."""

from __future__ import annotations

from mezzo.train.data import colours, vocabulary
from mezzo.train.data.colours import RGB
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas
from mezzo.train.data.scenes.common import (
    Pen,
    Questions,
    Wording,
    mixed,
    paper_and_ink,
    pen,
    rectangle,
    tilt,
)
from mezzo.train.data.vocabulary import Halves

PREFIXES = Halves(("Tel", "Phone", "T", "Tel."), ("Call", "Mob."))

NAME = Wording(
    ("Whose card is this?", "What is the name on the card?", "What is the person called?"),
    ("Name the person.", "To whom does this card belong?"),
    "card_field",
)
JOB = Wording(
    ("What is the job title?", "What is this person's job?", "What does this person do?"),
    ("Which profession is printed?",),
    "card_field",
)
FIRM = Wording(
    ("What is the company?", "Which company is on the card?", "Where does this person work?"),
    ("Name the employer.",),
    "card_field",
)
PHONE = Wording(
    ("What is the phone number?", "Which phone number is on the card?", "What number can I call?"),
    ("Read the telephone number.",),
    "card_field",
)
MAIL = Wording(
    ("What is the email address?", "Which email is on the card?", "Where can I send an email?"),
    ("Read the address for mail.",),
    "card_field",
)
PLACE = Wording(
    ("In which city is this?", "What is the city?"), ("Name the city on the card.",), "card_field"
)


def card(material: Material, width: int, height: int) -> Canvas:
    """Draw a card and ask for what is on it."""
    rng = material.rng
    paper, ink = paper_and_ink(rng)
    canvas = Canvas(width, height, paper)
    letters = pen(material, canvas, ink, 8, 23)
    accent_name = rng.choice([name for name in colours.NAMES if name not in ("white", "yellow")])
    accent = colours.shade(rng, accent_name)
    left, top, right, bottom = (
        6 + 0.03 * width,
        5 + 0.04 * height,
        width - 6 - 0.03 * width,
        height - 5 - 0.04 * height,
    )
    band = (
        rng.choice(("left", "top", "bottom", "", ""))
        if material.split == "train"
        else rng.choice(("right", ""))
    )
    share = rng.uniform(0.04, 0.1)
    box = {
        "left": (0.0, 0.0, width * share, float(height)),
        "right": (width * (1 - share), 0.0, float(width), float(height)),
        "top": (0.0, 0.0, float(width), height * share),
        "bottom": (0.0, height * (1 - share), float(width), float(height)),
    }.get(band)
    if box is not None:
        canvas.area("rectangle", accent_name, accent, rectangle(box))
        left, right = left + width * share * (band == "left"), right - width * share * (band == "right")
        top, bottom = top + height * share * (band == "top"), bottom - height * share * (band == "bottom")
    anchor = (
        rng.choice((0.0, 0.0, 0.5, 1.0)) if band not in ("left", "right") else 0.0 if band == "left" else 1.0
    )
    questions = Questions(material)
    rows = _rows(
        material, letters, right - left, int((bottom - top) / letters.height - 0.8), accent, questions
    )
    heights = [row[0].height for row in rows]
    spare = bottom - top - sum(heights)
    gap = min(spare, letters.height * rng.uniform(0.3, 2))  # between the person and the rest
    y = top + (spare - gap) * rng.random()
    at = left + anchor * (right - left)
    person = sum(1 for _, _, is_person in rows if is_person)
    for number, ((writer, text, _), row_height) in enumerate(zip(rows, heights, strict=True)):
        if number == person:
            if rng.random() < 0.4:
                canvas.draw.line((left, y + gap / 2, right, y + gap / 2), fill=accent)
            y += gap
        writer.write(at, y + row_height / 2, text, anchor)
        y += row_height
    questions.ask(canvas)
    tilt(canvas, material, 5)
    return canvas


def _rows(
    material: Material, letters: Pen, room: float, count: int, accent: RGB, questions: Questions
) -> list[tuple[Pen, str, bool]]:
    """Choose what is on the card: the pen, the text, and whether it is about the person or how to reach them."""
    rng = material.rng
    first, last = vocabulary.FIRST_NAMES.pick(material), vocabulary.LAST_NAMES.pick(material)
    name = rng.choice(
        (f"{first} {last}", f"{first} {last}", f"{first} {last}".upper(), f"{first[0]}. {last}")
    )
    domain = vocabulary.DOMAINS.pick(material)
    addresses = (
        f"{first}.{last}@{domain}",
        f"{first}@{domain}",
        f"{last}@{domain}",
        f"{first[0]}{last}@{domain}",
    )
    pool = list(addresses[:2] if material.split == "train" else addresses[2:])
    bright = letters.canvas.paper
    is_clear = abs(colours.luminance(accent) - colours.luminance(bright)) > 90
    strong = accent if is_clear else letters.ink
    soft = letters.in_ink(mixed(letters.ink, bright, rng.uniform(0, 0.25)))
    large = letters.resized(letters.size * rng.uniform(1.1, 1.5)).in_ink(rng.choice((strong, letters.ink)))
    rows = [(large.fitted(name, room), name, True)]
    questions.add(NAME, name)
    prefix = rng.choice(("", "", PREFIXES.pick(material) + " "))
    phone = letters.first_that_fits(lambda: vocabulary.phone(material), room - letters.width(prefix))
    extras = [
        (JOB, letters.first_that_fits(lambda: vocabulary.JOBS.pick(material), room), True, ""),
        (FIRM, letters.first_that_fits(lambda: vocabulary.firm(material), room), rng.random() < 0.5, ""),
        (PHONE, phone, False, prefix),
        (MAIL, letters.first_that_fits(lambda: rng.choice(pool).lower(), room), False, ""),
        (PLACE, letters.first_that_fits(lambda: vocabulary.CITIES.pick(material), room), False, ""),
    ]
    kept = rng.sample(extras, min(len(extras), max(1, count - 1), rng.randint(3, 5)))
    for wording, text, is_person, before in sorted(kept, key=extras.index):
        if text:
            rows.append((letters if is_person else soft, before + text, is_person))
            questions.add(wording, text)
    order = [row for row in rows if row[2]], [row for row in rows if not row[2]]
    return order[0] + order[1]
