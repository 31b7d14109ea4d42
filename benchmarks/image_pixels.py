"""How far other preprocessors' pixels are from mezzo's, and how long an image and a page take.

    python -m benchmarks.image_pixels

Pictures are made here: a smooth scene with hard edges, small text on white, and noise, the worst case. Each is
resized as mezzo does (Pillow, bicubic, as transformers' PixtralImageProcessorPil), as mistral-common does (OpenCV,
bicubic, without antialiasing) and as transformers' PixtralImageProcessor does (torchvision, which calls
`torch.nn.functional.interpolate`, antialiased). Differences are in steps of 8-bit colour.
"""

from __future__ import annotations

import asyncio
import io
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from fpdf import FPDF
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mezzo.prompt.media.documents import DocumentLimits, DocumentReader
from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.prompt.media.images import ImageProcessor
from mezzo.prompt.parts import ImagePart

PROCESSOR = ImageProcessor(
    patch_size=14, longest_edge=1540, spatial_merge_size=2, limits=ImageLimits(max_bytes=1 << 30)
)
SIZES = ((4000, 3000), (1600, 1200), (640, 480))
REPEATS = 5

Pixels = NDArray[np.uint8]


def scene(width: int, height: int) -> Image.Image:
    """Return gradients and waves with hard edges in them."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / 37) * 60 + y * 100 / height, np.cos(y / 23) * 60 + x * 100 / width, (x + y) % 97]
    pixels = np.stack(waves, -1) + 64
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 20)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def text(width: int, height: int) -> Image.Image:
    """Return lines of small letters, black on white."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for y in range(0, height, 14):
        draw.text(
            (8, y), f"{y:05d} The quick brown fox jumps over the lazy dog. " * (width // 200), fill="black"
        )
    return image


def noise(width: int, height: int) -> Image.Image:
    """Return independent pixels."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def by_opencv(image: Image.Image, size: tuple[int, int]) -> Pixels:
    """Resize as mistral-common does: floating point, no antialiasing; rounded here to compare."""
    resized = cv2.resize(np.asarray(image, np.float32), size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized).round().clip(0, 255).astype(np.uint8)


def by_torch(image: Image.Image, size: tuple[int, int]) -> Pixels:
    """Resize as torchvision does with antialiasing."""
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(tensor, size[::-1], mode="bicubic", antialias=True)
    return np.asarray(resized[0].permute(1, 2, 0).numpy(), np.uint8)


def median_ms(work: Callable[[], Any]) -> float:
    """Return the median time of a call after a first one."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def encode(image: Image.Image, format_: str) -> bytes:
    """Return the file of an image."""
    file = io.BytesIO()
    image.save(file, format_, **({"quality": 90} if format_ == "JPEG" else {}))
    return file.getvalue()


def document(kind: str) -> bytes:
    """Return a PDF of ten pages, of text or of scans."""
    pdf = FPDF()
    scan = scene(1240, 1754)
    for number in range(10):
        pdf.add_page()
        if kind == "text":
            pdf.set_font("Helvetica", size=10)
            pdf.multi_cell(0, text=f"Page {number}. " + "The quick brown fox jumps over the lazy dog. " * 60)
        else:
            pdf.image(scan, 0, 0, 210)
    return bytes(pdf.output())


def main() -> None:
    """Print both tables."""
    print(
        "| picture | size | against | mean | 99th percentile | largest |\n| --- | --- | --- | ---: | ---: | ---: |"
    )
    for make in (scene, text, noise):
        for width, height in SIZES:
            image = make(width, height)
            ours = PROCESSOR.prepare(ImagePart(encode(image, "PNG"), "image"))
            size = (ours.pixels.shape[1], ours.pixels.shape[0])
            for name, resize in (("mistral-common", by_opencv), ("torchvision", by_torch)):
                difference = np.abs(ours.pixels.astype(int) - resize(image, size))
                figures = (
                    f"{difference.mean():.2f} | {np.percentile(difference, 99):.0f} | {difference.max()}"
                )
                print(f"| {make.__name__} | {width}x{height} | {name} | {figures} |")
    print("\n| work | ms |\n| --- | ---: |")
    for format_ in ("JPEG", "PNG"):
        part = ImagePart(encode(scene(4000, 3000), format_), "image")
        print(f"| header of a {format_} of 4000x3000 | {median_ms(partial(PROCESSOR.check, part)):.2f} |")
        print(f"| pixels of it | {median_ms(partial(PROCESSOR.prepare, part)):.0f} |")
    for kind in ("text", "scans"):
        data = document(kind)

        def read(data: bytes = data) -> None:
            reader = DocumentReader(DocumentLimits())
            asyncio.run(reader.read(data, name=None, where="document"))

        print(f"| PDF of ten pages of {kind}, its process included | {median_ms(read):.0f} |")


if __name__ == "__main__":
    main()
