"""What a reader finds in a page or a PDF."""

from __future__ import annotations

import html.parser

import pypdfium2


class Page(html.parser.HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.style = ""
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._in_style = tag == "style"

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.style += data
            self._in_style = False
        else:
            self.text += data


def text_of_html(page: bytes) -> str:
    return Page(page.decode()).text


def text_of_pdf(document: bytes) -> str:
    """Return the text of a PDF, a form feed between its pages."""
    pdf = pypdfium2.PdfDocument(document)
    try:
        return "\f".join(
            pdf[number].get_textpage().get_text_range().replace("\r\n", "\n") for number in range(len(pdf))
        )
    finally:
        pdf.close()
