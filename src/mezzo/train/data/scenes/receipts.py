"""Receipts of shops: who sold what, when, and what it came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mezzo.train.data import vocabulary
from mezzo.train.data.material import Material
from mezzo.train.data.picture import Canvas
from mezzo.train.data.scenes.common import (
    Box,
    Pen,
    Questions,
    Wording,
    on_desk,
    paper_and_ink,
    pen,
    tilt,
)
from mezzo.train.data.vocabulary import Halves

TOTAL_LABELS = Halves(("Total", "TOTAL", "Total:", "Amount"), ("Grand Total", "Sum", "To Pay"))
TAX_LABELS = Halves(("Tax", "Tax 8%", "VAT", "Sales Tax"), ("GST", "VAT 20%"))
GREETINGS = Halves(
    ("Thank you!", "Thanks!", "Come again", "Have a nice day"), ("See you soon", "Many thanks", "Good bye")
)

TOTAL = Wording(
    (
        "What is the total?",
        "How much is the total?",
        "What is the total on the receipt?",
        "How much was paid in total?",
    ),
    ("What did everything cost together?", "Read the final amount.", "State the total amount."),
    "receipt_total",
)
DATE = Wording(
    ("What is the date?", "What date is on the receipt?", "When was this bought?"),
    ("On which day was the receipt printed?", "Tell me the date of the purchase."),
    "receipt_date",
)
SHOP = Wording(
    ("What is the name of the shop?", "Which shop is this receipt from?", "What is the store called?"),
    ("Who issued this receipt?", "Name the shop."),
    "receipt_shop",
)
PRICE = Wording(
    (
        "How much is {item}?",
        "What does {item} cost?",
        "What is the price of {item}?",
        "How much did {item} cost?",
    ),
    ("Which price stands beside {item}?", "Tell me the price of {item}."),
    "receipt_item",
)
ITEM = Wording(
    ("Which item costs {price}?", "What was bought for {price}?"),
    ("Name the item that costs {price}.",),
    "receipt_item",
)
COUNT = Wording(
    ("How many items were bought?", "How many items are on the receipt?"),
    ("Count the lines with items.",),
    "receipt_count",
)
TAX = Wording(("How much is the tax?", "What is the tax?"), ("Which amount of tax is shown?",), "receipt_tax")
SUBTOTAL = Wording(
    ("What is the subtotal?", "How much is the subtotal?"), ("Read the subtotal.",), "receipt_tax"
)


@dataclass(frozen=True)
class Row:
    """A line of the receipt. `kind`: shop, middle, pair, total, rule."""

    kind: str
    left: str
    right: str = ""


def receipt(material: Material, width: int, height: int) -> Canvas:
    """Draw a receipt and ask what is on it."""
    rng = material.rng
    paper, ink = paper_and_ink(rng)
    canvas, sheet = on_desk(material, width, height, paper, narrowest=0.45 if width > height else 0.6)
    letters = pen(material, canvas, ink, 7.5, 20 * width / (sheet[2] - sheet[0]))
    margin = max(5.0, 0.04 * (sheet[2] - sheet[0]))
    box = (sheet[0] + margin, sheet[1] + margin * 0.6, sheet[2] - margin, sheet[3] - margin * 0.6)
    questions = Questions(material)
    rows = _rows(material, letters, box, questions)
    _write(letters, box, rows, rng.uniform(0, 1), rng.random() < 0.5)
    questions.ask(canvas)
    tilt(canvas, material, 4)
    return canvas


def _rows(material: Material, letters: Pen, box: Box, questions: Questions) -> list[Row]:
    rng = material.rng
    room = box[2] - box[0]
    free = int((box[3] - box[1]) / letters.height) - 1.6
    money = vocabulary.MONEY.pick(material)
    case = rng.choice((str, str, str.upper, str.lower))
    shop = letters.first_that_fits(lambda: case(vocabulary.firm(material, vocabulary.SHOP_ENDINGS)), room)
    date_label = (
        rng.choice(("", "", "Date: ", "Date ")) if material.split == "train" else rng.choice(("", "On "))
    )
    date = letters.first_that_fits(material.date, room - letters.width(date_label))
    top, bottom = [Row("shop", shop)] if shop else [], list[Row]()
    if shop:
        questions.add(SHOP, shop)
    free -= 1.5  # the total
    date_row = None
    if date:
        questions.add(DATE, date)
        date_row = Row("middle" if rng.random() < 0.6 else "pair", date_label + date)
        free -= 1
    # What may be left out comes in while there is room for two items beside it.
    if free > 4.5 and rng.random() < 0.4:
        address = f"{rng.randint(1, 199)} {vocabulary.STREETS.pick(material)}"
        if letters.width(address) <= room:
            top.append(Row("middle", address))
            free -= 1
    with_tax = free > 4.5 and rng.random() < 0.6
    free -= 2 if with_tax else 0
    greeting = GREETINGS.pick(material) if free > 3.5 and rng.random() < 0.4 else ""
    free -= 1 if greeting else 0
    items = _items(material, letters, room, min(int(free), rng.randint(2, 8)), case)
    lines = [Row("pair", item, money.format(vocabulary.cents(amount))) for item, amount in items]
    subtotal = sum(amount for _, amount in items)
    tax = subtotal * rng.choice((5, 7, 8, 10, 20)) // 100 if with_tax else 0
    for item, amount in items:
        price = money.format(vocabulary.cents(amount))
        questions.add(PRICE, price, item=item)
        if sum(other == amount for _, other in items) == 1 and amount not in (subtotal, tax):
            questions.add(ITEM, item, price=price)
    questions.add(COUNT, str(len(items)))
    end = [Row("rule", "")]
    if with_tax:
        parts = (("Subtotal", subtotal, SUBTOTAL), (TAX_LABELS.pick(material), tax, TAX))
        for label, amount, wording in parts:
            text = money.format(vocabulary.cents(amount))
            end.append(Row("pair", label, text))
            questions.add(wording, text)
    total = money.format(vocabulary.cents(subtotal + tax))
    end.append(Row("total", TOTAL_LABELS.pick(material), total))
    questions.add(TOTAL, total)
    if date_row is not None:  # above the items; below the total only where it is held out
        (top if material.split == "train" else bottom).append(date_row)
    if greeting and letters.width(greeting) <= room:
        bottom.append(Row("middle", greeting))
    return [*top, Row("rule", ""), *lines, *end, *bottom]


def _items(
    material: Material, letters: Pen, room: float, count: int, case: Callable[[str], str]
) -> list[tuple[str, int]]:
    """Choose goods and prices in cents that stand side by side in the room."""
    rng = material.rng
    dear = rng.choice((9, 20, 99)) if material.split == "train" else rng.choice((14, 45, 250))
    room -= letters.width("EUR 99.99 ")
    names = [case(name) for name in vocabulary.GOODS.sample(material, count + 5)]
    return [(name, max(5, material.amount(dear))) for name in names if letters.width(name) <= room][:count]


def _write(letters: Pen, box: Box, rows: list[Row], down: float, dashed: bool) -> None:
    """Write the rows between the sides of the box, `down` being the share of what is left over that stays above."""
    left, top, right, bottom = box
    draw, step = letters.canvas.draw, letters.height
    heights = [step * {"rule": 0.5, "shop": 1.3, "total": 1.2}.get(row.kind, 1.0) for row in rows]
    y = top + down * max(0.0, bottom - top - sum(heights))
    for row, height in zip(rows, heights, strict=True):
        middle = y + height / 2
        y += height
        if row.kind == "rule":
            length = letters.size / 3 if dashed else right - left
            x = left
            while x < right:
                draw.line((x, middle, min(right, x + length), middle), fill=letters.ink)
                x += 2 * length
        elif row.kind in ("shop", "middle"):
            larger = letters.resized(letters.size * 1.2) if row.kind == "shop" else letters
            larger.fitted(row.left, right - left).write((left + right) / 2, middle, row.left, 0.5)
        elif row.kind == "total":
            larger = letters.resized(letters.size * 1.12).fitted(f"{row.left}   {row.right}", right - left)
            larger.write(left, middle, row.left)
            larger.write(right, middle, row.right, 1)
        else:
            writer = letters.fitted(f"{row.left}  {row.right}", right - left)
            writer.write(left, middle, row.left)
            writer.write(right, middle, row.right, 1)
