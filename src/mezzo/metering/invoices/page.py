"""An invoice as one HTML file, to read and to print: nothing in it is fetched from anywhere, and nothing in it runs."""

from __future__ import annotations

import jinja2

from mezzo.kit.money import exact_text, rounded_text
from mezzo.metering.invoices.invoice import Invoice
from mezzo.metering.names import Names, visible

KIND_TITLES = {"input": "Input", "cached_input": "Cached input", "output": "Output"}


def to_html(invoice: Invoice, names: Names) -> bytes:
    """Return an invoice as HTML, with the names that things have now."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mezzo.metering.invoices", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"exact": exact_text, "rounded": rounded_text, "visible": visible}
    page = environment.get_template("invoice.html").render(
        invoice=invoice, names=names, kind_titles=KIND_TITLES
    )
    return page.encode()
