"""Invoices for programs. A final invoice is the same bytes whenever it is written: ids, and no names, which change."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from typing import Any

from mezzo.kit.money import exact_text
from mezzo.metering.invoices.invoice import Invoice, Line

_CSV_COLUMNS = (
    "invoice",
    "status",
    "row",
    "workspace_id",
    "model_id",
    "service_tier",
    "token_kind",
    "price_id",
    "tokens",
    "price_per_million",
    "amount",
    "currency",
)


def to_json(invoice: Invoice) -> bytes:
    """Return an invoice as JSON; amounts are decimals in text, with all their nine places."""
    document = {
        "number": invoice.number,
        "status": _status(invoice),
        "provisional_because": invoice.provisional,
        "organization_id": invoice.organization_id,
        "month": str(invoice.month),
        "time_zone": invoice.period.zone.key,
        "period_start": _moment(invoice.period.start),
        "period_end": _moment(invoice.period.end),
        "currency": invoice.currency,
        "workspaces": [
            {
                "workspace_id": section.workspace_id,
                "lines": [_line(line) for line in section.lines],
                "amount": exact_text(section.amount),
            }
            for section in invoice.sections
        ],
        "amount": exact_text(invoice.amount),
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def to_csv(invoice: Invoice) -> bytes:
    """Return an invoice as a table: a `row` is a `line`, the `subtotal` of a workspace, or the `total`."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    shared = {"invoice": invoice.number, "status": _status(invoice), "currency": invoice.currency}
    for section in invoice.sections:
        of_section = {**shared, "workspace_id": section.workspace_id}
        for line in section.lines:
            writer.writerow({**of_section, "row": "line", **_line(line)})
        writer.writerow({**of_section, "row": "subtotal", "amount": exact_text(section.amount)})
    writer.writerow({**shared, "row": "total", "amount": exact_text(invoice.amount)})
    return text.getvalue().encode()


def _line(line: Line) -> dict[str, Any]:
    return {
        "model_id": line.model_id,
        "service_tier": line.service_tier,
        "token_kind": line.kind,
        "price_id": line.price_id,
        "tokens": line.tokens,
        "price_per_million": line.per_million,
        "amount": exact_text(line.amount),
    }


def _status(invoice: Invoice) -> str:
    return "final" if invoice.provisional is None else "provisional"


def _moment(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
