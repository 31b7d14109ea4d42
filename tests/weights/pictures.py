"""Pictures made here."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw


def png(width: int, height: int, *, drawn: bool = False) -> bytes:
    """Return a PNG of one colour, or of two ellipses on white."""
    image = Image.new("RGB", (width, height), "white" if drawn else (200, 30, 60))
    if drawn:
        draw = ImageDraw.Draw(image)
        draw.ellipse((width // 8, height // 8, width // 2, height - height // 8), fill="navy")
        draw.ellipse((width // 2, height // 4, width - 2, height // 2), fill="orange")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
