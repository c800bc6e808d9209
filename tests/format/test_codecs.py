"""Images come back from every codec; what is no such image is refused, without a warning."""

import io
import struct
import zlib
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from PIL import Image

from hellods.errors import FormatError, OptionError
from hellods.format import avif
from hellods.format.codecs import CODECS, decode, encode
from hellods.format.header import Images

# Smooth, so that lossy codecs keep it.
PIXELS = np.add.outer(np.add.outer(np.arange(24) * 2, np.arange(32) * 2), [10, 60, 120]).astype(np.uint8)
QUALITIES = {"png": None, "webp": None, "jpeg": 95, "avif": 95}


def saved(image: Image.Image, codec: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, codec, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_table_has_the_codecs_of_the_header() -> None:
    assert tuple(CODECS) == get_args(get_type_hints(Images)["codec"])


@pytest.mark.parametrize("codec", ["png", "webp"])
def test_lossless_codec_returns_the_pixels(codec: str) -> None:
    assert np.array_equal(decode(encode(PIXELS, codec, None), codec, 24, 32, "x"), PIXELS)


@pytest.mark.parametrize("codec", ["jpeg", "webp", "avif"])
def test_lossy_codec_returns_about_the_pixels(codec: str) -> None:
    found = decode(encode(PIXELS, codec, 95), codec, 24, 32, "x")
    assert np.abs(found.astype(int) - PIXELS).mean() < 6


@pytest.mark.parametrize("codec", ["jpeg", "avif"])
def test_lossy_codec_without_quality_is_refused(codec: str) -> None:
    with pytest.raises(OptionError, match=f"{codec} is never lossless"):
        encode(PIXELS, codec, None)


def test_jpeg_whose_scans_would_take_hours_is_refused() -> None:
    stream = saved(Image.fromarray(PIXELS), "jpeg", progressive=True)
    decode(stream, "jpeg", 24, 32, "x")
    last = stream[stream.rindex(b"\xff\xda") : -2]
    with pytest.raises(FormatError, match=r"it has 73 scans, and at most 64 are read \[C3\]$"):
        decode(stream[:-2] + (73 - stream.count(b"\xff\xda")) * last + stream[-2:], "jpeg", 24, 32, "x")


@pytest.mark.parametrize("side", [1, 7, 32, 33, 224, 513])
def test_avif_of_any_size_is_known_by_its_frame(side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (side, 40, 3), np.uint8)
    assert decode(encode(pixels, "avif", 75), "avif", side, 40, "x").shape == (side, 40, 3)


def test_avif_whose_frame_is_larger_than_it_says_is_refused_before_it_is_decoded() -> None:
    stream = bytearray(encode(np.zeros((2048, 2048, 3), np.uint8), "avif", 75))
    place = stream.index(b"ispe") + 8
    stream[place : place + 8] = struct.pack(">II", 32, 24)
    with pytest.raises(FormatError, match=r"not a avif image of 24x32: its frame is of 2048x2048 \[C3\]$"):
        decode(bytes(stream), "avif", 24, 32, "x")


HEADERS = {
    # A reduced header: profile 0, still, reduced, level 0, 5 and 5 bits for 32 × 24.
    "reduced": "000 1 1 00000 0100 0100 11111 10111",
    "whole": "000 1 0 0 0 00000 000000000000 00000 0100 0100 11111 10111",
    "whole, with a tier": "000 0 0 0 0 00000 000000000000 01000 0 0100 0100 11111 10111",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_size_is_read_from_every_sequence_header(header: str) -> None:
    bits = header.replace(" ", "")
    data = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8))
    assert avif._size(data + bytes(40)) == (24, 32)
    with pytest.raises(ValueError, match="truncated"):
        avif._size(data[:2])


@pytest.mark.parametrize("place", [5, 6], ids=["timing", "display delay"])
def test_sequence_header_of_a_film_is_refused(place: int) -> None:
    bits = ["0"] * 128
    bits[place] = "1"
    with pytest.raises(ValueError, match="not one still picture"):
        avif._size(int("".join(bits), 2).to_bytes(16))


@pytest.mark.parametrize(
    ("data", "units"),
    [
        (b"\x12\x00", [(2, b"")]),
        (b"\x0a\x02ab\x32\x01c", [(1, b"ab"), (6, b"c")]),
        (b"\x0e\x00\x02ab\x30cd", [(1, b"ab"), (6, b"cd")]),  # an extension; no length
        (b"\x32\x81\x01" + bytes(129), [(6, bytes(129))]),
    ],
)
def test_units_are_told_apart(data: bytes, units: list[tuple[int, bytes]]) -> None:
    assert list(avif._units(data)) == units


@pytest.mark.parametrize("codec", CODECS)
def test_same_pixels_give_the_same_bytes(codec: str) -> None:
    assert encode(PIXELS, codec, QUALITIES[codec]) == encode(PIXELS.copy(), codec, QUALITIES[codec])


@pytest.mark.parametrize("codec", CODECS)
def test_stream_cut_anywhere_is_refused(codec: str) -> None:
    stream = encode(PIXELS, codec, QUALITIES[codec])
    for length in range(len(stream)):
        with pytest.raises(FormatError, match=r"\[C3\]$"):
            decode(stream[:length], codec, 24, 32, "x")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("other", CODECS)
def test_stream_of_another_codec_is_refused(codec: str, other: str) -> None:
    if codec == other:
        return
    with pytest.raises(FormatError, match=rf"^x: not a {codec} image"):
        decode(encode(PIXELS, other, QUALITIES[other]), codec, 24, 32, "x")


@pytest.mark.parametrize(
    ("codec", "mode"),
    [("png", "L"), ("png", "P"), ("png", "RGBA"), ("png", "I;16"), ("jpeg", "L"), ("jpeg", "CMYK"), ("webp", "RGBA")],
)
def test_other_mode_is_refused(codec: str, mode: str) -> None:
    image = Image.new(mode, (32, 24), 7) if mode == "I;16" else Image.new("RGBA", (32, 24), (9, 9, 9, 9)).convert(mode)
    with pytest.raises(FormatError, match=r"expected (RGB|8)"):
        decode(saved(image, codec), codec, 24, 32, "x")


@pytest.mark.parametrize("codec", ["png", "webp", "avif"])
def test_animation_is_refused(codec: str) -> None:
    frames = [Image.new("RGB", (32, 24), color) for color in ("red", "blue")]
    stream = saved(frames[0], codec, save_all=True, append_images=frames[1:])
    with pytest.raises(FormatError, match=r"animated|2 frames|not one still picture"):
        decode(stream, codec, 24, 32, "x")


def test_broken_animation_raises_no_warning() -> None:
    stream = encode(PIXELS, "png", None)
    broken = stream[:33] + chunk(b"acTL", bytes(8)) + stream[33:]
    with pytest.raises(FormatError, match="animated"):
        decode(broken, "png", 24, 32, "x")


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns of the first, and raises at the second
def test_stream_that_claims_a_huge_image_is_refused_without_a_warning(side: int) -> None:
    stream = encode(PIXELS, "png", None)
    size = chunk(b"IHDR", struct.pack(">II", side, side) + stream[24:29])
    with pytest.raises(FormatError, match=rf"RGB {side}x{side} with 1 frames"):
        decode(stream[:8] + size + stream[33:], "png", 24, 32, "x")


def test_jpeg_with_other_pictures_inside_is_read_as_one_without_a_warning() -> None:
    stream = encode(PIXELS, "jpeg", 95)
    broken = stream[:2] + b"\xff\xe2" + struct.pack(">H", 12) + b"MPF\0" + bytes(6) + stream[2:]
    assert np.array_equal(decode(broken, "jpeg", 24, 32, "x"), decode(stream, "jpeg", 24, 32, "x"))
