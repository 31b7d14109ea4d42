"""From the bytes of an image's file to RGB: upright, on white, eight bits a channel."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.Image import Resampling, Transpose

from mezzo.prompt.media.image_headers import Format, ImageError, ImageHeader, essential

_STRIP_ROWS = 512
_PLUGINS: dict[Format, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def decode_rgb(data: bytes, header: ImageHeader) -> Image.Image:
    """Decode a file whose header has been read and judged.

    Of an animation, the first frame. EXIF's orientation is applied. What is transparent becomes white. 16 bits a
    channel are scaled to 8 by dropping the lower half, grey and RGB alike. CMYK goes through Pillow's plain
    conversion, which takes every CMYK JPEG as inverted, as Adobe writes them; colour profiles are not applied.
    Raises: ImageError if the file is broken or cut off.
    """
    try:
        image = _open(data, header.format)
        # What was judged must be what is decoded.
        if image.size == (header.width, header.height):
            image.load()
            rgb = _to_rgb(image)
            del image  # before turning makes a third copy
            return _upright(rgb, header.orientation)
    # Whatever is wrong with a file, Pillow's decoders say it with many kinds of exceptions.
    except Exception as error:
        is_cut = "truncated" in str(error).lower()
        raise ImageError(f"the image is {'truncated' if is_cut else 'broken'}") from error
    raise ImageError("the image contradicts its own size")


def resized(image: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """Return (height, width, 3): an image in RGB, scaled."""
    return np.array(image.resize((width, height), Resampling.BICUBIC))


def _open(data: bytes, format_: Format) -> ImageFile.ImageFile:
    # Not `Image.open`: it would try other formats' parsers and compare sizes with a limit that is global to the
    # process, warning at ours.
    return _PLUGINS[format_](io.BytesIO(essential(data, format_)))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image if image.mode == "RGB" else image.convert("RGB")
    return _on_white(image)


def _on_white(image: Image.Image) -> Image.Image:
    """Put an image with transparency on white, in strips: RGBA, background and sum are never held whole."""
    width, height = image.size
    result = Image.new("RGB", image.size)
    for top in range(0, height, _STRIP_ROWS):
        strip = image.crop((0, top, width, min(top + _STRIP_ROWS, height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        result.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return result


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
