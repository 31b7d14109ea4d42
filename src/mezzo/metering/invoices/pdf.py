"""An invoice as PDF.

The fonts of every PDF reader write Western European languages. What a font does not have is shown by its number, such
as `[U+65E5]`, so that different names stay different; with a font file of the operator's, whatever that has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from fontTools.ttLib import TTFont
from fpdf import FPDF

from mezzo.kit.money import exact_text, rounded_text
from mezzo.metering.invoices.invoice import Invoice, Section
from mezzo.metering.invoices.page import KIND_TITLES
from mezzo.metering.names import Names, visible

_ENCODING = "cp1252"  # of the fonts that readers have themselves
_FAMILY = "invoice"
_ASCII = range(0x20, 0x7F)  # everything that is written but names
_GREY = 100
_LIGHT = 200
_AMBER = (180, 83, 9)
_MARGIN_MM = 15
_LINE_MM = 5
_ROW_MM = 4.5
_COLUMNS_MM = (40, 40, 50, 50)
# So that a heading is not parted from what it is for.
_SECTION_HEAD_MM = 20
_GROUP_MM = 30


class FontUnusable(Exception):
    """A file that is no font, or none that can be put into a PDF."""


def to_pdf(invoice: Invoice, names: Names, *, font: Path | None = None) -> bytes:
    """Return an invoice as PDF, with the names that things have now. font: a TrueType or OpenType file.

    Raises: FontUnusable.
    """
    document = _Document(invoice, font)
    document.write_head(names)
    for section in invoice.sections:
        document.write_section(section, names)
    document.write_total()
    return bytes(document.pdf.output())


class _Document:
    """The pages while they are written."""

    def __init__(self, invoice: Invoice, font: Path | None) -> None:
        self.invoice = invoice
        self.pdf = _Pages(f"Invoice {invoice.number}")
        self.pdf.set_title(f"Invoice {invoice.number}")
        self.pdf.set_creation_date(invoice.period.end)
        self._can_show = self._add_font(font)
        self.pdf.set_font(self.pdf.text_family, size=10)
        self.pdf.add_page()

    def write_head(self, names: Names) -> None:
        invoice = self.invoice
        self._write(f"Invoice {invoice.number}", size=17)
        if invoice.provisional is not None:
            with self._in_colour(*_AMBER):
                self._write(f"Provisional: {invoice.provisional}. Amounts can still change.")
        self.pdf.ln(2)
        self._write(f"Organisation: {names.organization} ({invoice.organization_id})")
        self._write(f"Month: {invoice.month}, midnight to midnight in {invoice.period.zone.key}")
        self._write(f"Currency: {invoice.currency}")
        if not invoice.sections:
            self.pdf.ln(4)
            self._write("Nothing was used.")

    def write_section(self, section: Section, names: Names) -> None:
        self.pdf.ln(5)
        if self.pdf.will_page_break(_SECTION_HEAD_MM + _GROUP_MM):
            self.pdf.add_page()
        self._write(names.workspaces.get(section.workspace_id, "Workspace"), size=11)
        with self._in_colour(_GREY, _GREY, _GREY):
            self._write(section.workspace_id, size=8)
        self._write_headings()
        for lines in section.groups:
            if self.pdf.will_page_break(_GROUP_MM):
                self.pdf.add_page()
                self._write_headings()
            self.pdf.ln(1)
            self._write(f"{lines[0].model_id}, {lines[0].service_tier}", size=8)
            with self._in_colour(_GREY, _GREY, _GREY):
                self._write(f"at the price {lines[0].price_id}", size=7)
            for line in lines:
                self._write_row(
                    KIND_TITLES[line.kind], f"{line.tokens:,}", line.per_million, exact_text(line.amount)
                )
        self._draw_rule()
        self._write_row("Subtotal", "", "", exact_text(section.amount))

    def _write_headings(self) -> None:
        with self._in_colour(_GREY, _GREY, _GREY):
            self._write_row("Tokens", "Quantity", "Per million", self.invoice.currency)
        self._draw_rule()

    def _write_row(self, *texts: str) -> None:
        """Write what fits on one line: numbers, and words of ours."""
        self.pdf.set_font_size(8)
        for text, width, align in zip(texts, _COLUMNS_MM, ("LEFT", "RIGHT", "RIGHT", "RIGHT"), strict=True):
            self.pdf.cell(width, _ROW_MM, text, align=align)
        self.pdf.ln(_ROW_MM)

    def _draw_rule(self) -> None:
        self.pdf.set_draw_color(_LIGHT)
        self.pdf.line(self.pdf.l_margin, self.pdf.y, self.pdf.w - self.pdf.r_margin, self.pdf.y)

    def write_total(self) -> None:
        currency, amount = self.invoice.currency, self.invoice.amount
        self.pdf.ln(6)
        self._write(f"Total {currency} {rounded_text(amount)}", size=15, align="RIGHT")
        with self._in_colour(_GREY, _GREY, _GREY):
            exactly = f"exactly {currency} {exact_text(amount)}, rounded here and nowhere else"
            self._write(exactly, size=9, align="RIGHT")

    def _write(self, text: str, *, size: int = 10, align: str = "LEFT") -> None:
        self.pdf.set_font_size(size)
        self.pdf.multi_cell(
            0, _LINE_MM * size / 10, self._shown(text), align=align, new_x="LMARGIN", new_y="NEXT"
        )

    def _shown(self, text: str) -> str:
        return visible(text, self._can_show)

    @contextmanager
    def _in_colour(self, red: int, green: int, blue: int) -> Iterator[None]:
        self.pdf.set_text_color(red, green, blue)
        yield
        self.pdf.set_text_color(0)

    def _add_font(self, path: Path | None) -> Callable[[str], bool]:
        """Choose the font, and return whether it has a character."""
        if path is None:
            self.pdf.core_fonts_encoding = _ENCODING
            return _is_western
        characters = _characters_of(path)
        self.pdf.add_font(_FAMILY, fname=path)
        self.pdf.text_family = _FAMILY
        return lambda character: ord(character) in characters


class _Pages(FPDF):
    """A4 pages with a foot that numbers them."""

    def __init__(self, title: str) -> None:
        super().__init__(format="A4")
        self.text_family = "helvetica"
        self._title_below = title
        self.set_margin(_MARGIN_MM)
        self.set_auto_page_break(True, margin=_MARGIN_MM + 2 * _LINE_MM)

    def footer(self) -> None:
        """Write the foot of a page. Called by fpdf at its end."""
        self.set_y(-_MARGIN_MM)
        self.set_font(self.text_family, size=8)
        self.set_text_color(_GREY)
        self.cell(0, _LINE_MM, f"{self._title_below}, page {self.page_no()} of {{nb}}", align="RIGHT")
        self.set_text_color(0)


def _characters_of(path: Path) -> Collection[int]:
    """Return the code points that a font has. Raises: FontUnusable."""
    try:
        with TTFont(BytesIO(path.read_bytes())) as font:
            characters: Collection[int] = font.getBestCmap() or ()
    except OSError as error:
        raise FontUnusable(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # what is no font fails in any of a parser's ways
        raise FontUnusable(f"{path} is not a font that can be put into a PDF: {error}") from error
    if any(code not in characters for code in _ASCII):
        raise FontUnusable(f"{path} has not all letters, digits and signs of ASCII")
    return characters


def _is_western(character: str) -> bool:
    try:
        character.encode(_ENCODING)
    except UnicodeEncodeError:
        return False
    return True
