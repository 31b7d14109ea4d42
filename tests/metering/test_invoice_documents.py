"""Documents that nobody's names can break."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest

from mezzo.metering.invoices.data import to_csv, to_json
from mezzo.metering.invoices.invoice import Invoice, Line, Section
from mezzo.metering.invoices.page import to_html
from mezzo.metering.invoices.pdf import FontUnusable, to_pdf
from mezzo.metering.names import Names, visible
from mezzo.metering.periods import UTC_ZONE, Month, Period
from tests.metering.reading import Page, text_of_html, text_of_pdf

DEJAVU = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
SYMBOLS = DEJAVU.with_name("STIXSizOneSymReg.ttf")
MONTH = Month.parse("2026-09")

HOSTILE = (
    "<script>alert(1)</script><img src=https://evil.example/x>",
    "{{ 7 * 7 }}{% raw %}",
    "</title></style>&quot;'\"",
    "\u202eevil\u2066\u200f",
    "مرحبا بالعالم שלום",
    "👩‍👩‍👧‍👦 日本語 \U0001f3f4\U000e0067\U000e0062",
    "x" * 255,
    "漢" * 255,
    "a\x1b[31m\x07\x08\r\nb\tc\0",
    "**bold** --under-- [link](https://evil.example)",
    "\ud800",
    " ",
)
NAMES = Names(HOSTILE[0], {f"w{position:02}": name for position, name in enumerate(HOSTILE)}, {})


def invoice_with(workspaces: int, models: int = 1) -> Invoice:
    lines = tuple(
        Line(f"model-{number:02}", "standard", kind, f"price-{number:02}", 1000, "0.40", 400_000)
        for number in range(models)
        for kind in ("input", "output")
    )
    sections = tuple(Section(f"w{position:02}", lines) for position in range(workspaces))
    return Invoice("O-2026-09", "o", MONTH, Period.of_month(MONTH, UTC_ZONE), "USD", None, sections)


NAMED = invoice_with(len(HOSTILE))


class TestNames:
    """Names are anybody's text."""

    def test_are_text_in_html_and_nothing_is_fetched_or_run(self) -> None:
        page = Page(to_html(NAMED, NAMES).decode())
        assert not page.tags & {"script", "img", "link", "iframe", "object", "form", "a", "base"}
        assert not page.attributes & {"src", "href", "onload", "onerror", "action"}
        assert "url(" not in page.style
        assert "@import" not in page.style
        for name in HOSTILE:
            assert visible(name) in page.text

    def test_make_a_pdf_in_its_own_fonts(self) -> None:
        text = text_of_pdf(to_pdf(NAMED, NAMES)).replace("\n", "").replace(" ", "")
        for name in (HOSTILE[0], HOSTILE[1], HOSTILE[6], HOSTILE[9]):
            assert name.replace(" ", "") in text  # no markup
        assert "[U+202E]evil[U+2066][U+200F]" in text
        assert "[U+6F22]" * 255 in text
        assert "a[U+001B][31m[U+0007][U+0008][U+000D][U+000A]b[U+0009]c[U+0000]" in text
        assert "[U+D800]" in text

    def test_are_written_with_a_font_that_can(self) -> None:
        text = text_of_pdf(to_pdf(NAMED, NAMES, font=DEJAVU)).replace("\n", "")
        assert "[U+0645]" not in text  # Arabic is in this font
        assert text.count("[U+6F22]") > 250  # Chinese is not; a page may end amid one
        assert "[U+202E]evil" in text

    def test_a_file_that_cannot_be_the_font(self, tmp_path: Path) -> None:
        (tmp_path / "text.ttf").write_bytes(b"nothing of the kind")
        for path, said in (
            (tmp_path / "text.ttf", "is not a font"),
            (tmp_path / "missing.ttf", "cannot be read"),
            (SYMBOLS, "has not all letters"),
        ):
            with pytest.raises(FontUnusable, match=said):
                to_pdf(NAMED, NAMES, font=path)

    def test_are_not_in_what_programs_read(self) -> None:
        data = to_json(NAMED) + to_csv(NAMED)
        assert data.isascii()
        assert not any(visible(name).encode() in data for name in HOSTILE if name.strip())

    def test_that_are_missing_leave_the_id(self) -> None:
        nobody = Names("O", {}, {})
        for text in (text_of_html(to_html(NAMED, nobody)), text_of_pdf(to_pdf(NAMED, nobody))):
            assert "w00" in text


def test_nothing_used_is_an_invoice_of_nothing() -> None:
    invoice = invoice_with(0)
    assert to_csv(invoice).decode().splitlines()[1:] == ["O-2026-09,final,total,,,,,,,,0.000000000,USD"]
    for text in (text_of_html(to_html(invoice, NAMES)), text_of_pdf(to_pdf(invoice, NAMES))):
        assert "Nothing was used." in text
        assert "Total USD 0.00" in text


def test_a_long_invoice_has_its_headings_on_every_page() -> None:
    document = to_pdf(invoice_with(1, models=60), NAMES)
    pages = text_of_pdf(document).split("\f")
    assert len(pages) > 3
    assert all("Per million" in page for page in pages)
    assert f"page 1 of {len(pages)}" in pages[0]
    text = "".join(pages)
    assert all(f"price-{number:02}" in text for number in range(60))


def test_a_pdf_is_the_same_bytes_each_time() -> None:
    assert to_pdf(NAMED, NAMES) == to_pdf(NAMED, NAMES)
