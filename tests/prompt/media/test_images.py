"""Images arrive as their checkpoint wants them, whatever kind of file they came in."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mezzo.prompt.media.image_headers import ImageLimits
from mezzo.prompt.media.images import ImageProcessor, check_header
from mezzo.prompt.parts import ImagePart
from mezzo.protocol.errors import InvalidFile

from .pictures import chunk, encode, exif, noise, photo, png

# Small images stay as they are, so that pixels can be compared.
PROCESSOR = ImageProcessor(patch_size=14, longest_edge=1540, spatial_merge_size=2)
ONE_TO_ONE = ImageProcessor(patch_size=1, longest_edge=1540)


def part(data: bytes) -> ImagePart:
    return ImagePart(data, "messages[0].content[1]")


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return ONE_TO_ONE.prepare(part(data)).pixels


class TestFormats:
    @pytest.mark.parametrize("format_", ["PNG", "WEBP", "GIF", "JPEG"])
    def test_the_four_formats_are_read(self, format_: str) -> None:
        image = Image.new("RGB", (40, 30), (200, 30, 90))
        got = pixels(encode(image, format_, **({"lossless": True} if format_ == "WEBP" else {})))
        assert got.shape == (30, 40, 3)
        assert np.abs(got.astype(int) - (200, 30, 90)).max() <= (2 if format_ == "JPEG" else 0)

    def test_pixels_are_contiguous_bytes(self) -> None:
        prepared = PROCESSOR.prepare(part(encode(noise(100, 60))))
        assert prepared.pixels.dtype == np.uint8
        assert prepared.pixels.flags.c_contiguous
        assert prepared.pixels.shape == (prepared.rows * 28, prepared.columns * 28, 3)

    def test_lossy_and_animated_webp_give_the_first_frame(self) -> None:
        first, second = Image.new("RGB", (20, 20), (255, 0, 0)), Image.new("RGB", (20, 20), (0, 0, 255))
        for data in (
            encode(first, "WEBP", quality=100),
            encode(first, "WEBP", save_all=True, append_images=[second], lossless=True),
        ):
            assert np.abs(pixels(data).astype(int) - (255, 0, 0)).max() <= 3

    def test_animated_gif_gives_the_first_frame(self) -> None:
        frames = [Image.new("P", (20, 10), 0), Image.new("P", (20, 10), 1)]
        for frame in frames:
            frame.putpalette([255, 0, 0, 0, 0, 255])
        data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert (pixels(data) == (255, 0, 0)).all()

    def test_animated_png_gives_the_first_frame(self) -> None:
        first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
        assert (pixels(encode(first, save_all=True, append_images=[second])) == (255, 0, 0)).all()

    def test_interlaced_png_and_progressive_jpeg(self) -> None:
        image = photo(64, 48)
        assert (
            np.abs(
                pixels(encode(image, "JPEG", progressive=True, quality=100)) - np.asarray(image, int)
            ).mean()
            < 3
        )
        assert np.array_equal(pixels(encode(image)), np.asarray(image))


class TestModes:
    def test_transparency_becomes_white(self) -> None:
        image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
        image.putpixel((0, 0), (0, 0, 255, 255))
        image.putpixel((1, 0), (0, 0, 0, 128))
        got = pixels(encode(image))
        assert got[0, 0].tolist() == [0, 0, 255]
        assert got[0, 1].tolist() == [127, 127, 127]
        assert got[3, 3].tolist() == [255, 255, 255]

    def test_transparency_across_strips_equals_the_whole_at_once(self) -> None:
        image = noise(7, 1300, channels=4)
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        assert np.array_equal(
            pixels(encode(image)), np.asarray(Image.alpha_composite(white, image).convert("RGB"))
        )

    def test_palette_with_a_transparent_entry(self) -> None:
        image = Image.new("P", (4, 4), 1)
        image.putpalette([255, 0, 0, 0, 255, 0])
        image.putpixel((2, 2), 0)
        for format_ in ("PNG", "GIF"):
            got = pixels(encode(image, format_, transparency=1))
            assert got[2, 2].tolist() == [255, 0, 0]
            assert got[0, 0].tolist() == [255, 255, 255]

    def test_palette_with_translucent_entries(self) -> None:
        image = Image.new("P", (4, 4), 0)
        image.putpalette([0, 0, 0, 0, 255, 0])
        got = pixels(encode(image, transparency=bytes([128, 255])))
        assert got[0, 0].tolist() == [127, 127, 127]

    def test_palette_without_transparency(self) -> None:
        image = Image.new("P", (4, 4), 1)
        image.putpalette([255, 0, 0, 10, 20, 30])
        assert pixels(encode(image))[0, 0].tolist() == [10, 20, 30]

    def test_grey_grey_with_alpha_and_one_bit(self) -> None:
        assert pixels(encode(Image.new("L", (4, 4), 77)))[0, 0].tolist() == [77] * 3
        assert pixels(encode(Image.new("LA", (4, 4), (0, 128))))[0, 0].tolist() == [127] * 3
        assert pixels(encode(Image.new("1", (4, 4), 1)))[0, 0].tolist() == [255] * 3

    @pytest.mark.parametrize("colour", [0, 2], ids=["grey", "rgb"])
    def test_sixteen_bits_are_scaled_not_clipped(self, colour: int) -> None:
        channels = 3 if colour else 1
        row = b"".join(value.to_bytes(2, "big") * channels for value in (0, 0x00FF, 0x8000, 0xFFFF))
        got = pixels(png(4, 1, bit_depth=16, colour=colour, rows=b"\0" + row))
        assert got[0].tolist() == [[0] * 3, [0] * 3, [128] * 3, [255] * 3]

    def test_a_transparent_colour_of_sixteen_bits_is_left_out(self) -> None:
        # Brought to 8 bits, the pixel 0x8000 would be taken for the transparent colour 0x0080.
        transparent = chunk(b"tRNS", b"\0\x80" * 3)
        got = pixels(png(1, 1, bit_depth=16, colour=2, rows=b"\0" + b"\x80\0" * 3, before=(transparent,)))
        assert got[0, 0].tolist() == [128] * 3

    def test_cmyk_jpeg_is_taken_as_adobe_writes_it(self) -> None:
        # No ink is white, all black ink is black; Pillow writes Adobe's marker and inverted values.
        data = encode(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG", quality=100)
        assert b"Adobe" in data
        assert pixels(data)[0, 0].tolist() == [255] * 3
        assert pixels(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))[0, 0, 0] > 250

    def test_grey_jpeg(self) -> None:
        assert pixels(encode(Image.new("L", (8, 8), 90), "JPEG"))[0, 0].tolist() == [90] * 3

    def test_a_declared_gamma_or_profile_changes_nothing(self) -> None:
        image = noise(8, 8)
        assert np.array_equal(pixels(encode(image, icc_profile=b"x" * 500)), np.asarray(image))


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
    def test_exif_is_applied(self, orientation: int, format_: str) -> None:
        options: dict[str, Any] = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(format_, {})
        image = photo(48, 32)
        data = encode(image, format_, exif=b"Exif\0\0" + exif(orientation), **options)
        tag = Image.Exif()
        tag[0x0112] = orientation
        with Image.open(io.BytesIO(data)) as opened:
            expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        assert np.array_equal(pixels(data), expected)
        assert ONE_TO_ONE.check(part(data)) == expected.shape[:2]

    def test_little_endian_exif(self) -> None:
        data = encode(photo(48, 32), "JPEG", exif=b"Exif\0\0" + exif(6, order="<"))
        assert pixels(data).shape == (48, 32, 3)

    @pytest.mark.parametrize(
        "block",
        [
            exif(0),
            exif(9),
            exif(6)[:12],
            exif(6)[:-8],
            b"",
            b"nonsense",
            b"MM\0*\xff\xff\xff\xff",
            exif(6)[:8] + b"\xff\xff",
        ],
    )
    def test_what_is_no_orientation_turns_nothing(self, block: bytes) -> None:
        data = encode(photo(48, 32), "JPEG", exif=b"Exif\0\0" + block)
        assert pixels(data).shape == (32, 48, 3)


class TestSize:
    def test_example_of_the_docstring(self) -> None:
        assert PROCESSOR.grid(1600, 1000) == (35, 55)

    @pytest.mark.parametrize("rounding", ["floor", "nearest"])
    def test_extreme_shapes_have_at_least_one_token(self, rounding: Any) -> None:
        processor = ImageProcessor(patch_size=14, longest_edge=1540, rounding=rounding)
        assert processor.grid(10_000, 1) == (1, 110)
        assert processor.grid(1, 10_000) == (110, 1)
        assert processor.prepare(part(encode(Image.new("L", (10_000, 1))))).pixels.shape == (14, 1540, 3)

    def test_rounding_decides_where_floor_and_nearest_differ(self) -> None:
        # 2000x1000 at 1540 with patches of 10: 770 rows either way. 1998 wide: ratio 1.2974, height 770.77.
        sizes = {
            r: ImageProcessor(patch_size=1, longest_edge=1540, rounding=r).grid(1998, 1000)
            for r in ("floor", "nearest")
        }
        assert sizes == {"floor": (770, 1540), "nearest": (771, 1540)}

    def test_the_largest_image_has_the_contracts_number_of_tokens(self) -> None:
        assert PROCESSOR.grid(10_000, 10_000) == (55, 55)

    @given(st.integers(1, 10_000), st.integers(1, 10_000), st.sampled_from([(14, 2), (16, 1), (14, 1)]))
    @settings(max_examples=300, deadline=None)
    def test_nearest_is_mistral_commons_grid(self, width: int, height: int, patch: tuple[int, int]) -> None:
        from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs

        patch_size, merge = patch
        config = ImageConfig(image_patch_size=patch_size, max_image_size=1540, spatial_merge_size=merge)
        encoder = ImageEncoder(config, SpecialImageIDs(img=1, img_break=2, img_end=3))

        class Sized:
            size = (width, height)

        columns, rows = encoder._image_to_num_tokens(Sized())
        processor = ImageProcessor(
            patch_size=patch_size, longest_edge=1540, spatial_merge_size=merge, rounding="nearest"
        )
        assert processor.grid(width, height) == (rows, columns)


@pytest.mark.slow
class TestTransformers:
    @given(
        st.integers(1, 10_000),
        st.integers(1, 10_000),
        st.sampled_from([28, 16, 14]),
        st.sampled_from([1540, 1024]),
    )
    @settings(max_examples=300, deadline=None)
    def test_floor_is_transformers_grid(self, width: int, height: int, token: int, edge: int) -> None:
        from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size

        # Holds no memory, whatever its shape.
        image = np.broadcast_to(np.uint8(0), (height, width, 3))
        theirs = get_resize_output_image_size(image, (edge, edge), (token, token), "channels_last")
        ours = ImageProcessor(patch_size=token, longest_edge=edge).grid(width, height)
        # Where theirs has no row or column at all, ours has one.
        assert ours == (max(1, theirs[0] // token), max(1, theirs[1] // token))

    @pytest.mark.parametrize("size", [(640, 480), (2000, 1300), (1540, 1540), (28, 28), (5, 900), (3000, 31)])
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK"])
    def test_pixels_are_transformers_pixels(self, size: tuple[int, int], mode: str) -> None:
        from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

        image = photo(*size)
        if mode in ("RGBA", "LA"):
            image.putalpha(noise(*size).getchannel(0))
        image = image.convert(mode)
        data = encode(image, "JPEG") if mode == "CMYK" else encode(image, compress_level=1)
        processor = PixtralImageProcessorPil(
            size={"longest_edge": 1540}, patch_size=28, do_rescale=False, do_normalize=False
        )
        with Image.open(io.BytesIO(data)) as opened:
            theirs = processor(opened)["pixel_values"][0]
        assert np.array_equal(PROCESSOR.prepare(part(data)).pixels, np.moveaxis(theirs, 0, -1))


class TestIdentity:
    def test_equal_pixels_have_equal_digests(self) -> None:
        image = noise(56, 28)
        one, two = (PROCESSOR.prepare(part(d)) for d in (encode(image), encode(image, "WEBP", lossless=True)))
        assert one.digest == two.digest
        assert one.digest != PROCESSOR.prepare(part(encode(noise(56, 28, seed=1)))).digest

    def test_same_bytes_in_another_shape_have_another_digest(self) -> None:
        wide, tall = (PROCESSOR.prepare(part(encode(Image.new("L", size)))) for size in ((56, 28), (28, 56)))
        assert wide.digest != tall.digest


def test_threads_do_not_disturb_each_other() -> None:
    files = [encode(noise(120, 90, seed=seed), "WEBP" if seed % 2 else "PNG") for seed in range(12)]
    expected = [PROCESSOR.prepare(part(data)).digest for data in files]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(lambda d: PROCESSOR.prepare(part(d)).digest, files * 3)) == expected * 3


def test_only_a_few_are_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from mezzo.prompt.media import pixels as decoding

    entered, release = threading.Semaphore(0), threading.Event()
    inner = decoding.decode_rgb

    def slow(*args: Any) -> Image.Image:
        entered.release()
        release.wait(5)
        return inner(*args)

    monkeypatch.setattr(decoding, "decode_rgb", slow)
    data = encode(noise(8, 8))
    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(pixels, data) for _ in range(3)]
        assert entered.acquire(timeout=5)
        assert entered.acquire(timeout=5)
        assert not entered.acquire(timeout=0.2)
        release.set()
        assert all(future.result().shape == (8, 8, 3) for future in futures)


def test_header_check_and_preparation_agree_on_the_grid() -> None:
    for size in ((1, 1), (1541, 30), (4000, 3000)):
        data = encode(Image.new("L", size))
        prepared = PROCESSOR.prepare(part(data))
        assert PROCESSOR.check(part(data)) == (prepared.rows, prepared.columns)


def test_errors_name_the_chunk_and_have_the_contracts_code() -> None:
    for call in (PROCESSOR.prepare, PROCESSOR.check, lambda p: check_header(p, ImageLimits())):
        with pytest.raises(InvalidFile) as caught:
            call(part(b"BM" + b"\0" * 50))
        assert caught.value.body() == {
            "object": "error",
            "message": "messages[0].content[1]: BMP is not supported; send PNG, JPEG, WEBP or GIF",
            "type": "invalid_request_file",
            "param": "messages",
            "code": "3310",
            "raw_status_code": 400,
        }
