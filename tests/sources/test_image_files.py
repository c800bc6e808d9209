"""Every file becomes upright 8-bit RGB, or is refused with its name and what is wrong."""

from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from hellods.errors import SourceError
from hellods.sources.image_files import decode

RAMP = Image.linear_gradient("L").resize((12, 8))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(side: int = 32) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_rgb_keeps_every_pixel(kind: str) -> None:
    image, note = decode(encoded(photograph(), kind, **({"lossless": True} if kind == "WEBP" else {})), "x")
    assert torch.equal(image, pil_to_tensor(photograph()))
    assert note is None


@pytest.mark.parametrize(
    ("mode", "kind", "note"),
    [
        ("1", "PNG", "black-and-white"),
        ("L", "JPEG", "grayscale"),
        ("LA", "PNG", "grayscale with transparency (dropped)"),
        ("P", "PNG", "palette"),
        ("P", "GIF", "palette"),
        ("RGBA", "PNG", "RGB with transparency (dropped)"),
        ("CMYK", "JPEG", "CMYK"),
        ("I;16", "PNG", "16-bit grayscale"),
    ],
)
def test_other_modes_become_rgb_and_are_named(mode: str, kind: str, note: str) -> None:
    image, found = decode(encoded(RAMP.convert(mode), kind), "x")
    assert (image.dtype, image.shape, found) == (torch.uint8, (3, 8, 12), note)


def test_palette_with_transparent_entries_keeps_its_colors() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    image, _ = decode(encoded(palette, "PNG", transparency=b"\x00\x80"), "x")
    assert image[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 50]]


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    image, _ = decode(encoded(Image.fromarray(values), "PNG"), "x")
    assert image[0, 0].tolist() == [0, 1, 100, 255]


@pytest.mark.parametrize(("most", "seen"), [(65535, [0, 1, 255]), (1000, [0, 66, 255])])
def test_sixteen_bits_of_a_pgm_are_scaled_to_its_largest_value(most: int, seen: list[int]) -> None:
    values = np.array([0, 257, most], dtype=">u2")
    image, note = decode(b"P5 3 1 %d\n" % most + values.tobytes(), "x")
    assert (image[0, 0].tolist(), note) == (seen, "16-bit grayscale")


def test_image_is_upright_as_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned; rotate by 270 degrees
    image, _ = decode(encoded(photograph(), "PNG", exif=exif), "x")
    assert torch.equal(image, pil_to_tensor(photograph().transpose(Image.Transpose.ROTATE_270)))


def test_content_and_not_the_name_decides_the_format() -> None:
    image, _ = decode(encoded(photograph(), "PNG"), "photo.jpg")
    assert image.shape == (3, 32, 32)


def test_first_picture_of_a_phones_mpo_is_taken() -> None:
    data = encoded(photograph(), "MPO", save_all=True, append_images=[photograph(16)])
    assert decode(data, "x")[0].shape == (3, 32, 32)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_animated_image_is_refused(kind: str) -> None:
    data = encoded(photograph(), kind, save_all=True, append_images=[Image.new("RGB", (32, 32))])
    with pytest.raises(SourceError, match=r"cat/1\.x: animated, or of several pages \(2\)"):
        decode(data, "cat/1.x")


def test_empty_file_is_refused() -> None:
    with pytest.raises(SourceError, match=r"cat/1\.png: empty file \(0 bytes\); remove or replace"):
        decode(b"", "cat/1.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF"])
def test_truncated_file_is_refused(kind: str) -> None:
    data = encoded(photograph(), kind)
    with pytest.raises(SourceError, match=r"^cat/1\.x: .*; remove or replace this file$"):
        decode(data[: len(data) // 2], "cat/1.x")


@pytest.mark.parametrize("data", [b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"], ids=["text", "eps"])
def test_what_is_no_photograph_is_refused(data: bytes) -> None:
    with pytest.raises(SourceError, match="x: not an image that can be read"):
        decode(data, "x")


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_mode_without_a_fixed_range_is_refused(mode: str) -> None:
    picture = Image.new(mode, (4, 4))
    with pytest.raises(SourceError, match=f"x: pixels of mode {mode}, which have no fixed range; convert it"):
        decode(encoded(picture, "TIFF"), "x")


@pytest.mark.parametrize("side", [8193, 10_000, 20_000])  # ours, Pillow's warning, Pillow's error
def test_decompression_bomb_is_refused(side: int) -> None:
    with pytest.raises(SourceError, match=r"^x: too large"):
        decode(encoded(Image.new("1", (side, side)), "PNG"), "x")


SAMPLES = [encoded(photograph(8), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF")]


@settings(max_examples=200)
@given(st.sampled_from(SAMPLES), st.integers(0), st.integers(0, 255))
def test_altered_bytes_decode_or_are_refused_and_nothing_else(data: bytes, place: int, value: int) -> None:
    altered = bytearray(data)
    altered[place % len(data)] = value
    try:
        image, _ = decode(bytes(altered), "x")
    except SourceError:
        return
    assert (image.dtype, image.ndim, len(image)) == (torch.uint8, 3, 3)
