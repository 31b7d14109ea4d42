"""`mezzo invoices`: what a month cost, as a document."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mezzo.cli.output import CommandFailed, say
from mezzo.cli.reports import choose_zone, read_books, refuse

if TYPE_CHECKING:
    from mezzo.metering.invoices.invoice import Invoice
    from mezzo.metering.names import Names


class InvoiceFormat(StrEnum):
    """Forms of an invoice."""

    json = "json"
    csv = "csv"
    html = "html"
    pdf = "pdf"


def invoices(
    month: Annotated[str, typer.Argument(metavar="YYYY-MM", help="The month, like 2026-09.")],
    form: Annotated[
        InvoiceFormat | None,
        typer.Option(
            "--format", help="`json` or `csv` for programs, `html` or `pdf` to read; else as FILE ends."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it; to the terminal if unset.")
    ] = None,
    zone: Annotated[
        str, typer.Option(metavar="NAME", help="Whose midnights begin and end the month, like Europe/Paris.")
    ] = "UTC",
    organization: Annotated[
        str | None, typer.Option(metavar="ID", help="Whose invoice; may be left out where there is one.")
    ] = None,
    font: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A TrueType or OpenType font for names that a PDF's own cannot write."
        ),
    ] = None,
    home: Annotated[Path | None, typer.Option(metavar="FOLDER")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
) -> None:
    """Make the invoice of a month.

    One of a month that is over is final: JSON and CSV are the same, to the byte, whenever it is made. Until an hour
    after the month's end, and while requests of the month still run, it is provisional and says so.

        mezzo invoices 2026-09

        mezzo invoices 2026-09 --output september.pdf
    """
    from datetime import UTC, datetime

    from mezzo.metering.invoices.invoice import BooksContradictory, make_invoice
    from mezzo.metering.names import load_names
    from mezzo.metering.periods import Month, PeriodInvalid

    chosen = form or _format_of(output)
    if font is not None and chosen is not InvoiceFormat.pdf:
        refuse("--font: only a PDF has a font in it")
    if chosen is InvoiceFormat.pdf and output is None and sys.stdout.isatty():
        refuse("a PDF is no text for a terminal", hint="Name a file with --output.")
    midnights = choose_zone(zone)
    try:
        wanted = Month.parse(month)
        with read_books(organization, home=home, config=config) as books:
            invoice = make_invoice(
                books.connection,
                books.organization_id,
                wanted,
                zone=midnights,
                now=datetime.now(UTC),
            )
            names = load_names(books.connection, books.organization_id)
    except PeriodInvalid as error:
        refuse(str(error))
    except BooksContradictory as error:
        raise CommandFailed(f"the books contradict themselves: {error}") from error
    _write(_render(invoice, names, chosen, font), output)
    if invoice.provisional is not None:
        say(f"provisional: {invoice.provisional}")


def _format_of(output: Path | None) -> InvoiceFormat:
    suffix = output.suffix.removeprefix(".").lower() if output is not None else "json"
    if suffix not in list(InvoiceFormat):
        refuse(
            f"--output: {output} does not say its format", hint="Give --format, or a name that ends in .pdf."
        )
    return InvoiceFormat(suffix)


def _render(invoice: Invoice, names: Names, form: InvoiceFormat, font: Path | None) -> bytes:
    if form is InvoiceFormat.pdf:
        from mezzo.metering.invoices.pdf import FontUnusable, to_pdf

        try:
            return to_pdf(invoice, names, font=font)
        except FontUnusable as error:
            refuse(f"--font: {error}")
    if form is InvoiceFormat.html:
        from mezzo.metering.invoices.page import to_html

        return to_html(invoice, names)
    from mezzo.metering.invoices.data import to_csv, to_json

    return to_csv(invoice) if form is InvoiceFormat.csv else to_json(invoice)


def _write(document: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(document)
        sys.stdout.buffer.flush()
        return
    try:
        output.write_bytes(document)
    except OSError as error:
        raise CommandFailed(f"--output: {output} cannot be written: {error.strerror or error}") from error
    say(f"wrote {output}")
