"""Invoices: who asks whom for how much, for what, and until when."""

from __future__ import annotations

from mezzo.train.data import vocabulary
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas
from mezzo.train.data.scenes.common import Box, Pen, Questions, Wording, on_desk, paper_and_ink, pen, tilt
from mezzo.train.data.vocabulary import Halves

HEADINGS = Halves(("INVOICE", "Invoice", "TAX INVOICE"), ("Bill", "STATEMENT"))
NUMBER_LABELS = Halves(("Invoice no.", "Invoice #", "No.", "Number"), ("Ref.", "Document no."))
DATE_LABELS = Halves(("Date", "Invoice date", "Issued"), ("Dated", "Day of issue"))
DUE_LABELS = Halves(("Due", "Due date", "Pay by"), ("Payable by", "Deadline"))
CUSTOMER_LABELS = Halves(("Bill to", "Customer", "To", "Client"), ("Sold to", "Billed to"))
TOTAL_LABELS = Halves(("Total", "TOTAL", "Total due", "Amount due"), ("Balance", "To pay"))

NUMBER = Wording(
    (
        "What is the invoice number?",
        "Which number does the invoice have?",
        "What is the number of this invoice?",
    ),
    ("Read the number of the bill.", "Under which number was this billed?"),
    "invoice_number",
)
DATE = Wording(
    ("What is the invoice date?", "What is the date of the invoice?", "When was the invoice issued?"),
    ("On which day was this billed?", "Tell me the day of the invoice."),
    "invoice_date",
)
DUE = Wording(
    ("When is the invoice due?", "What is the due date?", "By when must it be paid?"),
    ("Until which day can this be paid?", "Tell me the last day for payment."),
    "invoice_due",
)
CUSTOMER = Wording(
    ("Who is the customer?", "Who is the invoice for?", "Who has to pay?", "Who is billed?"),
    ("Name the customer.", "Whose bill is this?"),
    "invoice_customer",
)
SELLER = Wording(
    ("Which company sent the invoice?", "Who is the invoice from?", "Who issued the invoice?"),
    ("Name the company that wants the money.",),
    "invoice_seller",
)
HEADING = Wording(
    ("What is the heading of the document?", "What is the title of this document?"),
    ("Read the word that heads the document.",),
    "invoice_title",
)
TOTAL = Wording(
    ("What is the total?", "What is the invoice total?", "How much is due?", "How much has to be paid?"),
    ("State the sum of the invoice.", "Read the amount to be paid."),
    "invoice_total",
)
AMOUNT = Wording(
    ("How much is charged for {line}?", "What is the amount for {line}?", "What does {line} cost?"),
    ("Which amount stands beside {line}?",),
    "invoice_line",
)
QUANTITY = Wording(
    ("What is the quantity of {line}?", "How many of {line} were ordered?"),
    ("Which quantity stands beside {line}?",),
    "invoice_line",
)
LINE = Wording(
    ("Which line comes to {amount}?", "What costs {amount}?"), ("Name the line of {amount}.",), "invoice_line"
)


def invoice(material: Material, width: int, height: int) -> Canvas:
    """Draw an invoice and ask what is on it."""
    rng = material.rng
    paper, ink = paper_and_ink(rng)
    canvas, sheet = on_desk(material, width, height, paper, narrowest=0.75)
    letters = pen(material, canvas, ink, 9, 24 * width / (sheet[2] - sheet[0]))
    margin = max(5.0, 0.04 * (sheet[2] - sheet[0]))
    box = (sheet[0] + margin, sheet[1] + margin * 0.7, sheet[2] - margin, sheet[3] - margin * 0.7)
    questions = Questions(material)
    top = _heading(material, letters, box, questions)
    top = _fields(material, letters, (box[0], top, box[2], box[3] - 2.5 * letters.height), questions)
    _lines(material, letters, (box[0], top, box[2], box[3]), questions)
    questions.ask(canvas)
    tilt(canvas, material, 4)
    return canvas


def _heading(material: Material, letters: Pen, box: Box, questions: Questions) -> float:
    """Write the heading, beside it or under it who sends it; return the y beneath."""
    left, top, right, _ = box
    title, sender = HEADINGS.pick(material), ""
    large = letters.resized(letters.size * material.rng.uniform(1.05, 1.4)).fitted(title, right - left)
    middle = top + large.height / 2
    room = right - left - large.width(title) - letters.size
    sender = letters.first_that_fits(lambda: vocabulary.firm(material), room)
    on_left = 0 if material.rng.random() < 0.5 else 1
    large.write((left, right)[on_left], middle, title, on_left)
    questions.add(HEADING, title)
    if sender:
        letters.write((right, left)[on_left], middle, sender, 1 - on_left)
        questions.add(SELLER, sender)
    return top + large.height + 0.2 * letters.size


def _fields(material: Material, letters: Pen, box: Box, questions: Questions) -> float:
    """Write number, dates and customer, one beneath the other or in two columns, while there is room."""
    rng = material.rng
    left, top, right, bottom = box
    fields = [
        (
            NUMBER_LABELS,
            lambda: material.code() if rng.random() < 0.5 else material.digits(rng.randint(3, 6)),
            NUMBER,
        ),
        (DATE_LABELS, material.date, DATE),
        (DUE_LABELS, material.date, DUE),
        (CUSTOMER_LABELS, lambda: _customer(material), CUSTOMER),
    ]
    if material.split == "held_out":  # the customer never comes first in what is trained on
        fields = [fields[-1], *fields[:-1]]
    elif rng.random() < 0.3:
        fields = [fields[0], fields[3], *fields[1:3]]
    columns = 2 if right - left > 30 * letters.size else 1
    labels = [names.pick(material) + rng.choice(("", ":", ":")) for names, _, _ in fields]
    half = (right - left) / columns
    indent = letters.widest(labels) + 0.7 * letters.size
    aligned = rng.random() < 0.6
    seen = set[str]()
    number = 0
    for label, (_, make, wording) in zip(labels, fields, strict=True):
        middle = top + (number // columns + 0.5) * letters.height
        if middle + letters.height / 2 > bottom:
            break
        x = left + number % columns * half
        start = indent if aligned else letters.width(label + " ")
        value = letters.first_that_fits(make, half - start - letters.size * (columns - 1))
        if not value or value in seen:
            continue
        seen.add(value)
        letters.write(x, middle, label)
        letters.write(x + start, middle, value)
        questions.add(wording, value)
        number += 1
    return top + -(-number // columns) * letters.height + 0.3 * letters.size


def _customer(material: Material) -> str:
    return vocabulary.person(material) if material.rng.random() < 0.5 else vocabulary.firm(material)


def _lines(material: Material, letters: Pen, box: Box, questions: Questions) -> None:
    """Write what is charged for, and the sum of it."""
    rng = material.rng
    left, top, right, bottom = box
    draw, step = letters.canvas.draw, letters.height
    money = vocabulary.MONEY.pick(material)
    count = max(0, min(rng.randint(1, 6), int((bottom - top - 0.6 * step) / step) - 1))
    room = right - left - letters.width(money.format("99,999.99 "))
    with_quantity = room > letters.width("Description") + 5 * letters.size and rng.random() < 0.6
    names = (vocabulary.SERVICES if rng.random() < 0.6 else vocabulary.GOODS).sample(material, count + 4)
    names = [name for name in names if letters.width(name) + 4 * letters.size * with_quantity <= room][:count]
    dear = rng.choice((90, 400, 2000)) if material.split == "train" else rng.choice((150, 900, 3000))
    prices = [max(100, material.amount(dear)) for _ in names]
    quantities = [rng.randint(1, 12) if with_quantity else 1 for _ in names]
    amounts = [price * quantity for price, quantity in zip(prices, quantities, strict=True)]
    across = left + room * rng.uniform(0.8, 0.95)  # where quantities end
    head = bool(names) and (material.split == "train" or rng.random() < 0.5)
    if head and bottom - top > (len(names) + 2.2) * step:
        middle = top + step / 2
        letters.write(left, middle, rng.choice(("Item", "Description")) if with_quantity else "Item")
        letters.write(right, middle, rng.choice(("Amount", "Price")), 1)
        if with_quantity:
            letters.write(across, middle, "Qty", 1)
        top += step
    draw.line((left, top, right, top), fill=letters.ink)
    top += 0.2 * step
    for name, quantity, amount in zip(names, quantities, amounts, strict=True):
        text = money.format(vocabulary.cents(amount))
        letters.write(left, top + step / 2, name)
        letters.write(right, top + step / 2, text, 1)
        questions.add(AMOUNT, text, line=name)
        if amounts.count(amount) == 1 and len(names) > 1:
            questions.add(LINE, name, amount=text)
        if with_quantity:
            letters.write(across, top + step / 2, str(quantity), 1)
            questions.add(QUANTITY, str(quantity), line=name)
        top += step
    draw.line((left, top + 0.1 * step, right, top + 0.1 * step), fill=letters.ink)
    total = money.format(vocabulary.cents(sum(amounts) if amounts else max(100, material.amount(dear))))
    label = TOTAL_LABELS.pick(material)
    larger = letters.resized(letters.size * 1.1).fitted(f"{label}   {total}", right - left)
    larger.write(left, top + 0.75 * step, label)
    larger.write(right, top + 0.75 * step, total, 1)
    questions.add(TOTAL, total)
