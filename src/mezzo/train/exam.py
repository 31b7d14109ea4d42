"""What nano is examined in: the lines of `mezzo train evaluate`'s table."""

from __future__ import annotations

from mezzo.train.data.mixture import Size
from mezzo.train.evaluate import Task

_STRIPS = (Size(2, 6), Size(2, 8), Size(3, 8), Size(4, 10), Size(7, 7))
_PICTURES = (Size(5, 7), Size(7, 7), Size(6, 8))
_PAGES = (Size(8, 7), Size(9, 8), Size(10, 8))

EXAM: tuple[Task, ...] = (
    Task("word, up to 8 characters", "line", ("word",), _STRIPS, lambda turn: len(turn.answer) <= 8),
    Task("word, 9 to 12 characters", "line", ("word",), _STRIPS, lambda turn: 9 <= len(turn.answer) <= 12),
    Task("number, up to 12 characters", "line", ("number",), _STRIPS, lambda turn: len(turn.answer) <= 12),
    Task("line, up to 32 characters", "line", ("line",), _STRIPS, lambda turn: len(turn.answer) <= 32),
    Task("sign", "sign", ("sign",), _PICTURES),
    Task("shape", "shapes", ("shape",), _PICTURES),
    Task("colour", "shapes", ("colour",), _PICTURES),
    Task("count", "shapes", ("count",), _PICTURES),
    Task("relation of two shapes", "shapes", ("relation",), _PICTURES),
    Task("receipt total", "receipt", ("receipt_total",), _PAGES),
    Task("receipt date", "receipt", ("receipt_date",), _PAGES),
    Task("invoice total", "invoice", ("invoice_total",), _PAGES),
    Task("form field", "form", ("form_field",), _PAGES),
    Task("table cell", "table", ("table_cell",), _PICTURES),
    Task("business card", "card", ("card_field",), _PICTURES),
    Task("bar chart, highest or lowest", "bar_chart", ("chart_extreme",), _PICTURES),
    Task("bar chart, value", "bar_chart", ("chart_value",), _PICTURES),
    Task("pie chart, largest or smallest", "pie_chart", ("chart_extreme",), _PICTURES),
    Task("line chart, value", "line_chart", ("chart_value",), _PICTURES),
)
